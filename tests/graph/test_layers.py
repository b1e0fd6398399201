import numpy as np
import onnx
import pytest
import torch
from networks import DsCnn, Recurrent, TinyCnn, UNet, calls_of, noise, task_of
from steps import by_way, context_of, convert_graph
from torch import nn

from edgekit.compress.half import Half
from edgekit.compress.totals import total_work
from edgekit.graph.layers import describe
from edgekit.runtimes.float_graph import float_graph

CASES = {
    "residual": (TinyCnn(), noise(1, 1, 16, 16)),
    "depthwise": (DsCnn(), noise(1, 1, 49, 10)),
}


def described(network, example, change=lambda model, _task: model):
    task = task_of(network, [example])
    model = change(float_graph(network, task, opset=20, ir_version=10)[0], task)
    return describe(model, calls_of(task, 1)[0])


@pytest.mark.parametrize("kind", CASES)
def test_the_work_is_what_torch_counts(kind):
    network, example = CASES[kind]
    found = described(network, example)
    assert found.macs == total_work(network.eval(), {"x": example})
    folded = sum(
        p.numel() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear) for p in m.parameters()
    )
    assert found.params >= folded


def test_kernel_families_are_told_apart():
    kinds = {layer.kind for layer in described(*CASES["depthwise"]).layers if layer.macs}
    assert kinds == {"dense", "depthwise", "pointwise", "gemm"}
    assert {layer.kind for layer in described(Recurrent(nn.LSTM), noise(1, 20, 16)).layers} >= {
        "recurrent",
        "gemm",
    }


def test_a_transposed_convolution_is_counted_by_its_input():
    up = next(layer for layer in described(UNet(), noise(1, 3, 32, 32)).layers if layer.op == "ConvTranspose")
    assert up.macs == 32 * 16 * 16 * 16 * 2 * 2


def test_activations_that_the_runtime_fuses_are_no_layers():
    assert "Relu" not in {layer.op for layer in described(*CASES["residual"]).layers}


def test_the_precision_is_what_the_kernel_computes_in(tmp_path):
    def int8(model, task):
        return by_way("ort-static", task, model, tmp_path, calls_of(task))

    def half(model, task):
        converted = convert_graph(task, model, "onnxruntime", tmp_path)
        return onnx.load(Half().apply(converted, task, context_of(task, None, tmp_path)).path)

    for change, precision in ((int8, "int8"), (half, "float16")):
        layers = described(*CASES["residual"], change).layers
        assert {layer.precision for layer in layers if layer.kind == "dense"} == {precision}


@pytest.mark.parametrize("name", ["nncf", "ort-static", "ort-dynamic", "ort-weight-only"])
def test_a_quantized_network_does_the_same_work(name, tmp_path):
    def int8(model, task):
        return by_way(name, task, model, tmp_path, calls_of(task))

    assert described(*CASES["residual"], int8).macs == described(*CASES["residual"]).macs


def test_the_most_memory_is_that_of_the_largest_neighbours():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(10, 1000), nn.Linear(1000, 10)

        def forward(self, x):
            return self.down(self.up(x).sigmoid())

    assert described(Wide(), noise(1, 10)).activation_peak == 2 * 1000 * np.dtype(np.float32).itemsize


def test_a_weight_that_several_layers_read_is_moved_by_each_and_stored_once():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64, bias=False)

        def forward(self, x):
            for _ in range(6):
                x = torch.tanh(self.layer(x))
            return x

    layers = [layer for layer in described(Shared(), noise(1, 64)).layers if layer.macs]
    assert [layer.params for layer in layers] == [64 * 64] * 6
    assert [layer.own_share for layer in layers] == [1, 0, 0, 0, 0, 0]
