import numpy as np
import onnx
import pytest
from networks import Attention, TinyCnn, calibrated, calls_of, noise
from onnx import numpy_helper
from steps import built
from torch import nn

from edgekit.compress.quantization.int8_nncf import quantize_nncf
from edgekit.compress.quantization.int8_onnxruntime import preprocessed, quantize_static
from edgekit.compress.quantization.settings import Settings
from edgekit.graph.fusion import count_float_nodes, dequantizing_nodes, optimised
from edgekit.graph.put_back import drop_dead_nodes, put_back, quantized_layers, restore_weights
from edgekit.signal import snr_db
from edgekit.verify import run_onnx


@pytest.fixture(scope="module")
def graphs():
    """The float graph and the int8 graph of both quantizers."""
    task, model = built(calibrated(TinyCnn(), 1, 16, 16), [noise(1, 1, 16, 16)])
    calls, ready = calls_of(task, 8), preprocessed(model)
    static = quantize_static(ready, calls, Settings(), reduce_range=False)
    nncf = quantize_nncf(model, calls, Settings(bias_correction="fast"), reduce_range=False)
    return calls, {"ort-static": (ready, static), "nncf": (model, nncf)}


def distance(before, after, calls):
    outputs = [[array for call in run_onnx(graph, calls) for array in call] for graph in (before, after)]
    return snr_db(*outputs)


@pytest.mark.parametrize("name", ["ort-static", "nncf"])
def test_with_every_layer_put_back_it_is_the_float_network_again(graphs, name):
    calls, found = graphs
    original, quantized = found[name]
    layers = quantized_layers(quantized)
    assert len(layers) >= 4
    before = quantized.SerializeToString()
    back = put_back(quantized, original, layers)
    assert quantized.SerializeToString() == before
    onnx.checker.check_model(back)
    # What is rounded besides the layers' inputs (the sum, the pooled features) stays so.
    assert distance(original, back, calls) > distance(original, quantized, calls) + 6


@pytest.mark.parametrize("name", ["ort-static", "nncf"])
def test_a_layer_that_was_put_back_computes_with_the_float_weights(graphs, name):
    calls, found = graphs
    original, quantized = found[name]
    layer = quantized_layers(quantized)[1]
    back = put_back(quantized, original, [layer])
    weights = {tensor.name: tensor for tensor in back.graph.initializer}
    node, before = (next(n for n in m.graph.node if n.name == layer) for m in (back, original))
    first = {tensor.name: tensor for tensor in original.graph.initializer}[before.input[1]]
    assert np.array_equal(numpy_helper.to_array(weights[node.input[1]]), numpy_helper.to_array(first))
    assert layer not in quantized_layers(back)
    assert count_float_nodes(optimised(back)) > count_float_nodes(optimised(quantized))
    assert distance(original, back, calls) > 15


def test_weights_are_restored_without_touching_what_the_layer_reads(graphs):
    calls, found = graphs
    original, quantized = found["ort-static"]
    layers = quantized_layers(quantized)
    back = restore_weights(put_back(quantized, original, [layers[2]]), original, [layers[1]])
    node, before = (next(n for n in m.graph.node if n.name == layers[1]) for m in (back, quantized))
    assert node.input[0] == before.input[0]
    assert node.input[1] != before.input[1]
    assert not dequantizing_nodes(optimised(back))
    assert distance(original, back, calls) > 15


def test_a_product_that_smooth_quant_scales_is_put_back_whole():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.attention, self.head = nn.LayerNorm(32), Attention(32, 4), nn.Linear(32, 4)

        def forward(self, x):
            return self.head(self.attention(self.norm(x)).mean(1))

    task, model = built(Block(), [noise(1, 9, 32)])
    calls = calls_of(task, 8)
    settings = Settings(bias_correction="none", smooth_quant=0.5)
    quantized = quantize_nncf(model, calls, settings, reduce_range=False)
    back = put_back(quantized, model, quantized_layers(quantized))
    assert distance(model, back, calls) > max(40, distance(model, quantized, calls))


def test_what_no_output_depends_on_goes():
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 17]> g (float[2] x) => (float[2] y) '
        "{ a = Relu(x) b = Add(a, w) y = Neg(x) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(noise(2), "w"))
    drop_dead_nodes(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Neg"]
    assert not model.graph.initializer
