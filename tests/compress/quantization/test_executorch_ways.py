"""Quantization for ExecuTorch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Grouped, Recurrent, TinyCnn, calibrated, calls_of, noise, trained_task
from steps import context_of, convert_graph, converted_of, fresh
from torch import nn

from edgekit.compress.quantization.executorch_ways import WAYS
from edgekit.compress.quantization.pt2e_xnnpack import static_quantizer
from edgekit.compress.quantization.settings import Settings
from edgekit.errors import BadInput
from edgekit.runtimes.executorch_file import float_products
from edgekit.runtimes.float_graph import float_graph
from edgekit.signal import snr_db

NAMED = {way.name: way for way in WAYS}


class Shuffle(nn.Module):
    def forward(self, x):
        return x.flip(1).clamp(0, 1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    task = trained_task(TinyCnn(), epochs=3)
    graph = float_graph(task.model, task, opset=20, ir_version=10)[0]
    return task, convert_graph(task, graph, "executorch", folder), context_of(task, graph, folder)


def made(name, converted, task, context, **settings):
    return NAMED[name].make(converted, Settings(**settings), task, context, fresh(context.folder))


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("pt2e-static", 0),
        ("pt2e-static-mse", 0),
        ("pt2e-dynamic", 1),
    ],  # a stem of one channel is depthwise: no dynamic kernel
)
def test_int8_keeps_the_accuracy_at_a_third_of_the_size(digits, name, left):
    task, converted, context = digits
    artifact = made(name, converted, task, context)
    assert context.measure(artifact.open()).drop <= 0.02
    assert artifact.size_bytes < converted.artifact.size_bytes / 2.5
    assert float_products(converted.artifact) == 5
    assert NAMED[name].left_in_float(artifact) == left


@pytest.mark.parametrize("name", ["pt2e-static", "pt2e-dynamic"])
def test_the_same_network_gives_the_same_bytes_and_is_left_as_it_was(digits, name):
    task, converted, context = digits
    before = {key: value.clone() for key, value in converted.network().state_dict().items()}
    digests = {made(name, converted, task, context).digest() for _ in range(2)}
    assert len(digests) == 1
    assert all(bool((before[key] == value).all()) for key, value in converted.network().state_dict().items())


@pytest.mark.parametrize(
    ("least_error", "observer"), [(False, "MinMaxObserver"), (True, "HistogramObserver")]
)
def test_ranges_come_from_what_was_met_or_from_a_histogram(least_error, observer):
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    network = torch.export.export(nn.Linear(8, 8).eval(), (torch.zeros(1, 8),)).module()
    prepared = prepare_pt2e(network, static_quantizer(least_error=least_error))
    found = {type(module).__name__ for module in prepared.modules() if "Observer" in type(module).__name__}
    assert found == {observer, "PerChannelMinMaxObserver"}


def test_a_layer_used_twice_is_quantized_for_each_use_and_stored_once(tmp_path):
    network = calibrated(Grouped(), 3, 16, 16)
    calls = [[noise(1, 3, 16, 16, seed=seed)] for seed in range(8)]
    task, converted = converted_of(network, calls[0], "executorch", tmp_path, calls=calls)
    artifact = made("pt2e-static", converted, task, context_of(task, converted.graph, tmp_path))
    assert float_products(artifact) == 0
    assert artifact.size_bytes < converted.artifact.size_bytes / 2
    call = task.named(task.example)
    assert np.isfinite(artifact.open()(call)[0]).all()


def test_int4_weights_are_half_of_int8(tmp_path):
    calls = [[noise(1, 256, seed=seed)] for seed in range(4)]
    network = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))
    task, converted = converted_of(network, calls[0], "executorch", tmp_path, calls=calls)
    context = context_of(task, converted.graph, tmp_path)
    before = converted.artifact.open()(task.named(task.example))
    sizes = {}
    for name, weights in (("pt2e-dynamic", "int8"), ("torchao-int4", "int4")):
        artifact = made(name, converted, task, context, weights=weights)
        assert snr_db(before, artifact.open()(calls_of(task)[0])) > 10
        sizes[name] = artifact.size_bytes
    assert sizes["torchao-int4"] < 0.75 * sizes["pt2e-dynamic"]
    assert type(converted.network()[0].weight) is nn.Parameter  # left as it was


def test_what_stays_float_in_a_recurrent_network_is_counted(tmp_path):
    calls = [[noise(1, 3, 16, seed=seed)] for seed in range(4)]
    task, converted = converted_of(Recurrent(nn.LSTM), calls[0], "executorch", tmp_path, calls=calls)
    artifact = made("pt2e-dynamic", converted, task, context_of(task, converted.graph, tmp_path))
    assert (float_products(converted.artifact), float_products(artifact)) == (5, 4)  # all but the head


def test_a_network_without_weights_is_refused(tmp_path):
    task, converted = converted_of(Shuffle(), [noise(1, 8)], "executorch", tmp_path, calls=[[noise(1, 8)]])
    with pytest.raises(BadInput, match="nothing was quantized"):
        made("pt2e-dynamic", converted, task, context_of(task, converted.graph, tmp_path))


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("pt2e-static", {}, ""),
        ("pt2e-dynamic", {}, ""),
        ("torchao-int4", {"weights": "int4"}, ""),
        ("pt2e-static", {"weights": "int4"}, "int8 weights, not on int4"),
        ("pt2e-static", {"activations": "int16"}, "int16 activations; LiteRT"),
        ("pt2e-static", {"ranges": "entropy"}, "no entropy ranges"),
        ("pt2e-static", {"smooth_quant": 0.5}, "SmoothQuant"),
        ("pt2e-dynamic", {"revert": True}, "put back to float"),
        ("torchao-int4", {}, "weights: int4"),
        ("torchao-int4", {"weights": "int4", "group_size": 16}, "multiples of 32"),
    ],
)
def test_settings_that_the_runtime_has_not_are_refused(digits, name, settings, why):
    _, converted, context = digits
    reason = NAMED[name].why_not(converted, Settings(**settings), context)
    assert why in reason
    assert bool(reason) == bool(why)


def test_static_needs_calibration_data(digits):
    _, converted, context = digits
    bare = replace(context, calls=())
    assert "calibration" in NAMED["pt2e-static"].why_not(converted, Settings(), bare)
    assert NAMED["pt2e-dynamic"].why_not(converted, Settings(), bare) == ""
