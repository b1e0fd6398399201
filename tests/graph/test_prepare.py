import numpy as np
import onnx
import pytest
from networks import noise
from onnx import TensorProto, helper, numpy_helper, parser

from edgekit.errors import BadInput
from edgekit.graph.prepare import (
    LEAST_OPSET,
    fixed_axes,
    fold_constants,
    is_quantized,
    opset_of,
    own_outputs,
    prepare,
    random_node,
)
from edgekit.verify import run_onnx

CALL = [{"x": noise(1, 4)}]


def model_of(body, *, opset=17, shape="1,4", ir_version=9, domains=""):
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]>'
    return parser.parse_model(f"{header} g (float[{shape}] x) => (float[1,4] y) {{{body}}}")


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_an_old_operator_set_is_converted_up_and_says_so(opset):
    old = model_of("w = Constant<value = float {2}>() z = Mul(x, w) y = Relu(z)", opset=opset)
    new, notes = prepare(old, opset=20, ir_version=10)
    assert opset_of(new) == LEAST_OPSET
    assert notes[0] == f"operator set converted from {opset} to {LEAST_OPSET}"
    assert np.array_equal(run_onnx(old, CALL)[0][0], run_onnx(new, CALL)[0][0])
    assert opset_of(old) == opset


def test_a_newer_operator_set_than_the_device_takes_is_converted_down():
    assert opset_of(prepare(model_of("y = Relu(x)", opset=20), opset=17, ir_version=10)[0]) == 17


def test_one_that_cannot_go_down_is_refused():
    gelu = model_of("y = Gelu(x)", opset=20)
    with pytest.raises(BadInput, match=r"^the model: operator set 20 cannot be converted to 17: .*opset 17$"):
        prepare(gelu, opset=17, ir_version=10)


def test_an_old_operator_set_that_no_rule_converts_is_kept():
    old = model_of("y = com.microsoft.Gelu(x)", opset=11, domains=', "com.microsoft": 1')
    new, notes = prepare(old, opset=20, ir_version=10)
    assert np.allclose(run_onnx(new, CALL)[0][0], run_onnx(old, CALL)[0][0])
    assert "operator set" in notes[0]


def test_every_kind_of_constant_node_becomes_an_initializer():
    body = """
      a = Constant<value = float[4] {1, 2, 3, 4}>()
      b = Constant<value_float = 2.0>()
      c = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()
      d = Constant<value_ints = [1, 4]>()
      e = Mul(x, a) f = Add(e, b) h = Add(f, c) y = Reshape(h, d)
    """
    before = model_of(body)
    after, notes = prepare(before, opset=20, ir_version=10)
    assert notes == ["4 weights moved from Constant nodes into initializers"]
    assert [node.op_type for node in after.graph.node] == ["Mul", "Add", "Add", "Reshape"]
    assert np.array_equal(run_onnx(before, CALL)[0][0], run_onnx(after, CALL)[0][0])


def test_weights_listed_as_inputs_are_inputs_no_more():
    model = model_of("y = Mul(x, w)", ir_version=3, opset=7)
    model.graph.initializer.append(numpy_helper.from_array(np.full(4, 3, np.float32), "w"))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    assert [value.name for value in prepare(model, opset=20, ir_version=10)[0].graph.input] == ["x"]


def test_wrong_declared_shapes_of_intermediate_values_are_dropped():
    model = model_of("z = Relu(x) y = Neg(z)")
    model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [7, 7]))
    assert not prepare(model, opset=20, ir_version=10)[0].graph.value_info


def test_the_file_format_is_lowered_to_what_the_device_reads():
    assert prepare(model_of("y = Relu(x)", ir_version=13), opset=20, ir_version=8)[0].ir_version == 8


IF = """
  zero = Constant<value = float {0}>() total = ReduceSum<keepdims = 0>(x) more = Greater(total, zero)
  y = If (more) <
    then_branch = a () => (float[1,4] p) { p = OP(x) },
    else_branch = b () => (float[1,4] q) { q = Neg(x) }
  >
"""


@pytest.mark.parametrize(("op", "found"), [("Relu", None), ("RandomNormalLike", "p")])
def test_random_numbers_are_found_in_branches_too(op, found):
    assert random_node(model_of(IF.replace("OP", op)).graph) == found


def test_integers_are_found_in_branches_too():
    body = "{ s = Constant<value = float {1}>() i = QuantizeLinear(x, s) p = DequantizeLinear(i, s) }"
    assert is_quantized(model_of(IF.replace("{ p = OP(x) }", body)))
    assert not is_quantized(model_of(IF.replace("OP", "Relu")))


def test_an_output_that_is_an_initializer_gets_a_node_of_its_own():
    model = model_of("y = Add(x, k)")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "k"))
    model.graph.output.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [4]))
    expected = run_onnx(model, CALL)[0]
    own_outputs(model.graph)
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} == {"Add", "Identity"}
    assert all(np.array_equal(a, b) for a, b in zip(expected, run_onnx(model, CALL)[0], strict=True))


def test_only_axes_that_were_asked_dynamic_and_are_not_are_reported():
    model = model_of("y = Relu(x)", shape="batch,4")
    assert fixed_axes(model, {"x": {0: "batch"}}) == []
    assert fixed_axes(model, {"x": {0: "batch", 1: "time"}}) == ["input `x` axis 1 is fixed at 4"]


def test_strings_in_constants_are_left_where_they_are():
    model = model_of('s = Constant<value_string = "a">() y = Relu(x)')
    assert fold_constants(model.graph) == 0
