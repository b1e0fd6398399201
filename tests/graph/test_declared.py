import pytest
from networks import noise
from onnx import parser

from edgekit.graph.declared import declare_inputs, declare_outputs
from edgekit.graph.prepare import shape_of


def file_of(declared, body="y = Relu(x)", shape="N,T,4"):
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[{shape}] x) => (float[{declared}] y) {{{body}}}'
    )


INPUTS = [("x", ("N", "T", 4))]
SUM = "k = Constant<value_ints = [1]>() y = ReduceSum<keepdims = 0>(x, k)"


@pytest.mark.parametrize(
    ("declared", "body", "right"),
    [
        ("N,7,4", "y = Relu(x)", ("N", "T", 4)),
        ("1,7,4", "y = Relu(x)", ("N", "T", 4)),
        ("N,T,4", "y = Relu(x)", ("N", "T", 4)),
        ("rows,columns,4", "y = Relu(x)", ("rows", "columns", 4)),
        ("1,1000", SUM, ("N", 4)),
        ("1,1,1,1", SUM, ("N", 4)),
        ("1,14,4", "y = Concat<axis = 1>(x, x)", ("N", "y_1", 4)),
    ],
)
def test_declared_output_shapes_are_those_that_the_graph_gives(declared, body, right):
    model = file_of(declared, body)
    declare_outputs(model, INPUTS, [noise(1, 7, 4)])
    assert shape_of(model.graph.output[0]) == right


def test_a_fixed_size_is_believed_where_a_longer_call_cannot_be_made():
    model = file_of("1,7,4", "k = Constant<value_ints = [1,7,4]>() y = Reshape(x, k)")
    declare_outputs(model, INPUTS, [noise(1, 7, 4)])
    assert shape_of(model.graph.output[0]) == (1, 7, 4)


def test_an_input_of_which_the_file_says_nothing_has_the_shape_of_the_deployed_call():
    model = file_of("N,4", SUM)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    declare_inputs(model, [("x", ("batch", 7, 4))])
    assert shape_of(model.graph.input[0]) == ("batch", 7, 4)
