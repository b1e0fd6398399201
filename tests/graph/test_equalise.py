import numpy as np
import pytest
import torch
from networks import calibrated, calls_of, noise
from onnx import numpy_helper
from steps import built
from torch import nn

from edgekit.compress.quantization.int8_onnxruntime import preprocessed, quantize_static
from edgekit.compress.quantization.settings import Settings
from edgekit.graph.equalise import equalise
from edgekit.signal import snr_db
from edgekit.verify import run_onnx


def uneven(activation):
    """A depthwise separable network whose channels reach from 0.02 to 6."""
    network = nn.Sequential(
        nn.Conv2d(3, 32, 1), activation, nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU(), nn.Conv2d(32, 8, 1)
    )
    calibrated(network, 3, 12, 12)
    reach = torch.logspace(-1.7, 0.7, 32)
    with torch.no_grad():
        network[0].weight *= reach[:, None, None, None]
        network[0].bias *= reach
        network[2].weight /= reach[:, None, None, None]
    return built(network, [noise(1, 3, 12, 12)])


def outputs(graph, calls):
    return [array for call in run_onnx(graph, calls) for array in call]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.Identity()], ids=str)
def test_equalised_channels_give_the_same_outputs_and_survive_int8_better(activation):
    task, model = uneven(activation)
    calls = calls_of(task, 8)
    before = model.SerializeToString()
    equal, pairs = equalise(model, calls)
    assert pairs == 1
    assert model.SerializeToString() == before
    expected = outputs(model, calls)
    assert snr_db(expected, outputs(equal, calls)) > 90
    ratios = [
        snr_db(
            expected, outputs(quantize_static(preprocessed(g), calls, Settings(), reduce_range=False), calls)
        )
        for g in (model, equal)
    ]
    assert ratios[1] > ratios[0] + 3


def test_what_another_node_reads_too_is_left_alone():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)

        def forward(self, x):
            y = self.first(x).relu()
            return self.second(y) + y

    task, model = built(Branching(), [noise(1, 3, 6, 6)])
    equal, pairs = equalise(model, calls_of(task, 2))
    assert pairs == 0
    assert equal.SerializeToString() == model.SerializeToString()


def test_a_channel_that_is_always_zero_stays_finite():
    task, model = uneven(nn.ReLU())
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in first.input[1:]:
        array = numpy_helper.to_array(weights[name]).copy()
        array[3] = 0
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    equal, _ = equalise(model, calls_of(task, 4))
    assert all(np.isfinite(numpy_helper.to_array(tensor)).all() for tensor in equal.graph.initializer)
