"""What people bring comes out as a graph that does the same, or is refused in one true line."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from networks import (
    DsCnn,
    Encoder,
    Grouped,
    ONet,
    PNet,
    Recurrent,
    Stateful,
    Tagger,
    TinyCnn,
    UNet,
    Vit,
    calibrated,
    calls_of,
    noise,
    task_of,
)
from torch import nn

from edgekit.errors import BadInput
from edgekit.graph.prepare import shape_of
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import check_export, run_onnx, run_torch


class Given(nn.Module):
    """A network whose forward is one function of its layers and the inputs."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), forward

    def forward(self, *inputs):
        return self.function(self.layers, *inputs)


def converted(task):
    model, notes = float_graph(task.model, task, opset=20, ir_version=10)
    onnx.checker.check_model(model)
    assert model.ir_version <= 10
    return model, notes


def x_of(**axes):
    return {"x": {int(axis[1:]): name for axis, name in axes.items()}}


KINDS = {
    "residual": (TinyCnn(), [noise(1, 1, 16, 16)], x_of(_0="batch")),
    "audio": (calibrated(DsCnn(), 1, 49, 10), [noise(1, 1, 49, 10)], {}),
    "voice with a state": (Stateful(), [noise(1, 512), noise(2, 1, 16)], {}),
    "text": (Encoder(), [np.arange(12)[None]], x_of(_0="batch", _1="length")),
    "vision transformer": (Vit(), [noise(1, 1, 16, 16)], x_of(_0="batch")),
    "segmentation": (calibrated(UNet(), 3, 32, 32), [noise(1, 3, 32, 32)], x_of(_2="height", _3="width")),
    "proposals": (PNet(), [noise(1, 3, 24, 32)], x_of(_0="batch", _2="height", _3="width")),
    "landmarks": (ONet(), [noise(1, 3, 24, 24)], x_of(_0="batch")),
    "labels": (calibrated(Tagger(), 3, 32, 32), [noise(1, 3, 32, 32)], {}),
    "shared layer": (calibrated(Grouped(), 3, 16, 16), [noise(1, 3, 16, 16)], {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_every_kind_are_converted_and_agree(kind):
    network, example, dynamic = KINDS[kind]
    task = task_of(network, example, dynamic=dynamic)
    model, _ = converted(task)
    assert check_export(network, model, calls_of(task, 4)).snr_db > 90
    shapes = {value.name: shape_of(value) for value in model.graph.input}
    for name, axes in dynamic.items():
        assert [shapes[name][axis] for axis in axes] == list(axes.values())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_time_axis_stays_dynamic_however_often_one_exports(kind):
    for _ in range(2):
        task = task_of(Recurrent(kind), [noise(1, 20, 16)], dynamic=x_of(_1="time"))
        model, _ = converted(task)
        longer = [{"x": noise(1, 33, 16)}]
        expected, found = run_torch(task.model, longer)[0], run_onnx(model, longer)[0]
        assert [a.shape for a in found] == [(1, 33, 2), (1, 1, 32)]
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(expected, found, strict=True))


def test_a_size_that_went_through_a_python_number_is_no_dynamic_axis():
    network = Given(lambda layers, x: layers[0](x) * torch.ones(len(x), 1), nn.Linear(16, 4))
    task = task_of(network, [noise(1, 16)], dynamic=x_of(_0="batch"))
    with pytest.raises(BadInput) as refusal:
        converted(task)
    line = str(refusal.value)
    assert line.startswith("the model of net: cannot be exported to ONNX: dynamo exporter: ")
    assert "; TorchScript exporter: " in line
    assert "\n" not in line


def test_a_branch_that_a_trace_would_lose_is_refused():
    network = Given(lambda layers, x: layers[0](x) if x.sum() > 0 else -layers[0](x), nn.Linear(16, 4))
    with pytest.raises(BadInput, match=r"TorchScript exporter: a trace keeps one side only of a branch"):
        converted(task_of(network, [noise(1, 16)]))


def test_a_branch_that_the_example_and_its_negative_do_not_take_is_kept():
    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x):
            if x.abs().max() > 30:
                return -self.layer(x)
            return self.layer(x)

    task = task_of(Loud(), [noise(1, 16)], dynamic=x_of(_0="batch"))
    model, notes = converted(task)
    assert notes[0].startswith("exported by the TorchScript exporter (dynamo exporter: ")
    for scale in (1, 100):
        calls = [{"x": noise(3, 16) * np.float32(scale)}]
        assert np.allclose(run_onnx(model, calls)[0][0], run_torch(task.model, calls)[0][0], rtol=1e-3)


def test_a_branch_of_a_scripted_network_is_kept():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x):
            if bool(x.sum() > 0):
                return self.layer(x)
            return -self.layer(x)

    task = task_of(torch.jit.script(Branching()), [noise(1, 16)])
    model, _ = converted(task)
    assert "If" in {node.op_type for node in model.graph.node}
    assert check_export(task.model, model, calls_of(task)).snr_db > 90


@pytest.mark.parametrize(
    "forward",
    [lambda _, x: x + torch.randn_like(x), lambda _, x: F.dropout(x, 0.5, training=True)],
    ids=["noise", "dropout"],
)
def test_a_network_that_draws_random_numbers_is_refused(forward):
    with pytest.raises(
        BadInput, match=r"^the model of net: output 0 differs between two calls with equal inputs"
    ):
        converted(task_of(Given(forward), [noise(1, 16)]))


def test_an_onnx_file_that_draws_random_numbers_is_refused_by_the_node():
    text = '<ir_version: 9, opset_import: ["": 17]> g (float[1,4] x) => (float[1,4] y)'
    model = onnx.parser.parse_model(text + "{ [dice] n = RandomNormalLike(x) y = Add(x, n) }")
    with pytest.raises(BadInput, match=r"node `dice` draws random numbers"):
        converted(task_of(model, [noise(1, 4)]))


LINEAR = nn.Linear(16, 4)
SHAPES = {
    "a dict of a nest": (lambda m, x: {"b": m[0](x), "a": (x.mean(1), [m[0](x).relu()])}, 3),
    "views of the input": (lambda m, x: (m[0](x), x.view(1, 4, 4), x), 3),
    "constants": (lambda m, x: (m[0](x), torch.zeros(3), torch.ones(2)), 3),
    "always zero": (lambda m, x: (m[0](x), x * 0), 2),
    "integers and booleans": (lambda m, x: (m[0](x).argmax(1), m[0](x) > 0, m[0](x)), 3),
    "a sort": (lambda m, x: torch.topk(m[0](x), 2, 1), 2),
    "a change of the input in place": (lambda m, x: m[0](x.mul_(2)), 1),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_outputs_of_every_shape_are_kept_in_order(kind):
    forward, count = SHAPES[kind]
    task = task_of(Given(forward, LINEAR), [noise(1, 16)])
    model, _ = converted(task)
    assert len(model.graph.output) == count
    assert check_export(task.model, model, calls_of(task, 4)).snr_db > 90
    written = {name for node in model.graph.node for name in node.output}
    assert all(output.name in written for output in model.graph.output)


def test_inputs_keep_their_integer_types():
    network = Given(lambda m, i, x: m[1](m[0](i).mean(1) + x), nn.Embedding(10, 16), LINEAR)
    task = task_of(network, [np.arange(5, dtype=np.int32)[None], noise(1, 16)])
    model, _ = converted(task)
    assert [value.type.tensor_type.elem_type for value in model.graph.input] == [onnx.TensorProto.INT32, 1]
    assert check_export(network, model, calls_of(task, 4)).snr_db > 90


def test_an_operator_that_onnx_lacks_is_refused_with_its_name():
    with pytest.raises(BadInput, match=r"^the model of net: cannot be exported to ONNX: .*fft_rfft"):
        converted(task_of(Given(lambda m, x: torch.fft.rfft(m[0](x)), LINEAR), [noise(1, 16)]))


def test_a_traced_file_is_exported_too():
    task = task_of(torch.jit.trace(TinyCnn().eval(), torch.zeros(1, 1, 16, 16)), [noise(1, 1, 16, 16)])
    model, notes = converted(task)
    assert not notes or "TorchScript" in notes[0] or "Constant" in notes[0]
    assert check_export(task.model, model, calls_of(task, 4)).snr_db > 90


def test_a_scalar_input_stays_a_scalar():
    network = Given(lambda _, x, flip: torch.where(flip, -x, x))
    task = task_of(network, [noise(1, 4), np.array(True)])
    model, _ = converted(task)
    assert shape_of(model.graph.input[1]) == ()
    assert check_export(network, model, calls_of(task, 2)).snr_db > 100


def test_an_output_declares_the_dynamic_axis_that_reaches_it():
    task = task_of(Recurrent(nn.GRU), [noise(1, 9, 16)], dynamic=x_of(_0="batch", _1="time"))
    assert shape_of(converted(task)[0].graph.output[0]) == ("batch", "time", 2)
