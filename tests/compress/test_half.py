import numpy as np
import onnx
import pytest
from networks import Encoder, Recurrent, Vit, accuracy, calls_of, noise, task_of
from steps import built, by_way, context_of, convert_graph
from torch import nn

from edgekit.compress.half import Half
from edgekit.errors import BadInput
from edgekit.verify import check_graph


@pytest.fixture
def half(tmp_path):
    """The 16-bit graph of a float one, for onnxruntime."""

    def treat(graph, task, precision="float16"):
        converted = convert_graph(task, graph, "onnxruntime", tmp_path)
        made = Half(precision=precision).apply(converted, task, context_of(task, None, tmp_path))
        assert (made.inputs, made.outputs) == (converted.artifact.inputs, converted.artifact.outputs)
        return onnx.load(made.path)

    return treat


def test_half_the_bytes_and_the_same_answers(tiny_cnn, tiny_graph, half):
    before = tiny_graph.SerializeToString()
    small = half(tiny_graph, tiny_cnn)
    assert tiny_graph.ByteSize() / small.ByteSize() > 1.7
    assert accuracy(small) == pytest.approx(accuracy(tiny_graph), abs=0.005)
    assert tiny_graph.SerializeToString() == before


def test_inputs_and_outputs_keep_their_types(tiny_cnn, tiny_graph, half):
    small = half(tiny_graph, tiny_cnn)
    values = [*small.graph.input, *small.graph.output]
    assert {value.type.tensor_type.elem_type for value in values} == {onnx.TensorProto.FLOAT}


def test_a_transformer_is_halved(half):
    task, model = built(Vit(), [noise(1, 1, 16, 16)])
    check_graph("float32 -> half", model, half(model, task), calls_of(task, 4), 40)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_which_the_runtime_takes_only_in_float_is_no_gain(kind, half):
    task, model = built(Recurrent(kind), [noise(1, 20, 16)])
    with pytest.raises(BadInput, match=r"^half: float16 makes it no smaller$"):
        half(model, task)


def test_a_recurrent_layer_beside_larger_ones_stays_float(half):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.rnn = nn.Linear(16, 512), nn.LSTM(512, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(self.wide(x).relu())[0]

    task, model = built(Mixed(), [noise(1, 20, 16)])
    check_graph("float32 -> half", model, half(model, task), calls_of(task, 4), 30)


def test_a_graph_that_the_runtime_would_die_of_is_refused(half):
    dynamic = {"x": {0: "batch", 1: "length"}}
    task, model = built(Encoder(), [np.arange(12)[None]], dynamic=dynamic)
    with pytest.raises(BadInput, match=r"^the model: onnxruntime dies of it \(SIGSEGV\)$"):
        half(model, task)


def test_branches_are_refused_in_one_line(half):
    text = (
        '<ir_version: 9, opset_import: ["": 17]> g (float[1,4] x, bool more) => (float[1,4] y) '
        "{ y = If (more) <then_branch = a () => (float[1,4] p) { p = Relu(x) }, "
        "else_branch = b () => (float[1,4] q) { q = Neg(x) }> }"
    )
    task = task_of(onnx.parser.parse_model(text), [noise(1, 4), np.array(True)])
    with pytest.raises(BadInput, match=r"^half: If, Loop and Scan nodes cannot be stored as float16$"):
        half(task.model, task)


def test_a_quantized_file_is_left_alone(tiny_cnn, tiny_graph, half, tmp_path):
    quantized = by_way("ort-static", tiny_cnn, tiny_graph, tmp_path)
    with pytest.raises(BadInput, match=r"^the model of net: it is quantized already and is left alone$"):
        half(quantized, tiny_cnn)


def test_a_precision_that_the_runtime_lacks_is_refused_with_the_one_that_it_has(tiny_cnn, tiny_graph, half):
    with pytest.raises(BadInput, match=r"^half: onnxruntime has no bfloat16 kernels on a CPU; use float16$"):
        half(tiny_graph, tiny_cnn, "bfloat16")
