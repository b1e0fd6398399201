import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from networks import Vit, accuracy, calls_of, noise, task_of
from steps import context_of, convert_graph, fresh
from torch import nn

from edgekit.compress.quantization.onnxruntime_ways import WAYS
from edgekit.compress.quantization.qat import _Rounding, trained
from edgekit.compress.quantization.qat_ways import qat_way
from edgekit.compress.quantization.settings import Settings
from edgekit.errors import BadInput
from edgekit.graph.fusion import optimised, unfused_nodes
from edgekit.runtimes.float_graph import float_graph
from edgekit.signal import snr_db

STATIC = next(way for way in WAYS if way.name == "ort-static")
QAT = next(way for way in WAYS if way.name == "qat")


def outputs(network, images):
    with torch.no_grad():
        return [network(images).numpy()]


@pytest.fixture(scope="module")
def uneven(tiny_cnn):
    """The digits network whose stem's channels reach unevenly far: the same, but hard to round."""
    network = copy.deepcopy(tiny_cnn.model)
    reach = torch.logspace(-1, 0.5, 16)
    with torch.no_grad():
        network.stem[1].weight *= reach
        network.stem[1].bias *= reach
        network.down[0].weight /= reach[:, None, None]
    return replace(tiny_cnn, model=network)


def test_the_network_comes_out_float_and_rounds_better(uneven, tmp_path):
    before = copy.deepcopy(uneven.model)
    said = []
    context = context_of(uneven, None, tmp_path, detail=said.append)
    network = trained(uneven.model, uneven, Settings(epochs=2, learning_rate=1e-4), context)
    assert [line.partition(",")[0] for line in said] == ["before training", "epoch 1 of 2", "epoch 2 of 2"]
    assert network.state_dict().keys() == before.state_dict().keys()
    assert same(uneven.model, before)
    assert not network.training
    images = torch.from_numpy(np.concatenate([call[0] for call in uneven.calibration]))
    expected = outputs(uneven.model, images)
    ratios = [rounded_db(each, context, images, expected) for each in (uneven.model, network)]
    assert ratios[1] > ratios[0] + 6


def rounded_db(network, context, images, expected):
    """How close the network is to float while it is rounded."""
    rounded, rounding = copy.deepcopy(network), _Rounding(bits=8)
    rounding.attach(rounded)
    rounding.observe(rounded, context.calls)
    return snr_db(expected, outputs(rounded, images))


def same(one, other):
    """Whether two networks have the same parameters and statistics."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_seed_gives_the_same_weights(tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path, calls=calls_of(tiny_cnn, 4))
    once, twice = (trained(tiny_cnn.model, tiny_cnn, Settings(epochs=1), context) for _ in range(2))
    assert same(once, twice)


def test_where_no_epoch_comes_closer_the_weights_are_those_of_the_start(tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path, calls=calls_of(tiny_cnn, 4))
    spoilt = trained(tiny_cnn.model, tiny_cnn, Settings(epochs=1, learning_rate=0.5), context)
    assert same(spoilt, tiny_cnn.model)


@pytest.mark.parametrize("bits", [8, 7])
def test_rounded_weights_have_no_more_values_than_bits_allow(bits):
    network = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ConvTranspose2d(4, 6, 5), nn.Flatten(), nn.LazyLinear(5))
    network(torch.zeros(1, 3, 9, 9))
    before = copy.deepcopy(network)
    rounding = _Rounding(bits=bits)
    rounding.attach(network)
    for layer, axis in ((network[0], 0), (network[1], 1), (network[3], 0)):
        for channel in layer.weight.detach().unbind(axis):
            steps = channel / channel.abs().max() * (2 ** (bits - 1) - 1)
            assert torch.allclose(steps, steps.round(), atol=1e-3)
    rounding.detach(network)
    assert same(network, before)
    assert isinstance(network[0].weight, nn.Parameter)


def test_the_way_keeps_the_better_of_trained_and_untrained(tiny_cnn, tiny_graph, tmp_path):
    converted = convert_graph(tiny_cnn, tiny_graph, "onnxruntime", tmp_path)
    context = context_of(tiny_cnn, tiny_graph, tmp_path)
    artifact = QAT.make(converted, Settings(method="qat", epochs=1), tiny_cnn, context, fresh(tmp_path))
    static = STATIC.make(converted, Settings(), tiny_cnn, context, fresh(tmp_path))
    assert context.measure(artifact.open()).drop <= context.measure(static.open()).drop
    graph = onnx.load(artifact.path)
    assert accuracy(graph) >= accuracy(tiny_graph) - 0.01
    assert not unfused_nodes(optimised(graph))
    assert artifact.size_bytes < 0.45 * converted.artifact.size_bytes


def test_it_goes_the_static_way_of_another_runtime_too(tiny_cnn, tiny_graph, tmp_path):
    from edgekit.compress.quantization.openvino_ways import WAYS as OPENVINO

    way = qat_way("qat", next(way for way in OPENVINO if way.name == "nncf"))
    converted = convert_graph(tiny_cnn, tiny_graph, "openvino", tmp_path)
    context = context_of(tiny_cnn, tiny_graph, tmp_path)
    settings = Settings(method="qat", epochs=1, bias_correction="none", samples=16)
    artifact = way.make(converted, settings, tiny_cnn, context, fresh(tmp_path))
    assert artifact.runtime == "openvino"
    assert context.measure(artifact.open()).drop <= 0.05
    assert way.left_in_float(artifact) <= 1


def test_an_onnx_file_and_a_task_without_training_data_are_refused(tiny_cnn, tiny_graph, tmp_path):
    converted = convert_graph(tiny_cnn, tiny_graph, "onnxruntime", tmp_path)
    context = context_of(tiny_cnn, None, tmp_path)
    file = replace(converted, network=None)
    said = QAT.why_not(file, Settings(), context)
    assert said == "an ONNX file cannot be fine-tuned; give the torch network"
    bare = replace(tiny_cnn, training=None)
    with pytest.raises(BadInput, match=r"^it needs training data and a torch network; add `train"):
        QAT.make(converted, Settings(), bare, context, fresh(tmp_path))


def test_a_network_without_layers_to_round_is_refused(tmp_path):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return x @ self.weight

    task = task_of(Bare(), [noise(1, 4)], calls=[(noise(1, 4),)], training=lambda: [torch.zeros(2, 4)])
    with pytest.raises(BadInput, match=r"^quantize: no convolution or dense layer of torch.nn to train with"):
        trained(task.model, task, Settings(), context_of(task, None, tmp_path))


def test_attention_is_trained_too(tmp_path):
    torch.manual_seed(0)
    batches = [torch.from_numpy(noise(4, 1, 16, 16, seed=seed)) for seed in range(2)]
    calls = [(noise(1, 1, 16, 16, seed=seed),) for seed in range(4)]
    task = task_of(Vit(), calls[0], calls=calls, training=lambda: batches)
    network = trained(task.model, task, Settings(epochs=1), context_of(task, None, tmp_path))
    graph, _ = float_graph(network, task, opset=20, ir_version=10)
    assert not [node for node in graph.graph.node if "Quantize" in node.op_type]
