"""TFLite's ways of quantizing: what they make, what they refuse, and what a quality limit does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Recurrent, TinyCnn, Vit, calls_of, noise, task_of, trained_task
from steps import context_of, convert_graph, converted_of, fresh
from torch import nn

from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.tflite_static import prepare
from edgekit.compress.quantization.tflite_ways import WAYS
from edgekit.errors import BadInput
from edgekit.result import Quality
from edgekit.runtimes.float_graph import float_graph
from edgekit.runtimes.tflite_aeq import activation_ranges, partitions
from edgekit.runtimes.tflite_file import kinds, left_in_float, operators
from edgekit.signal import snr_db

BY_NAME = {way.name: way for way in WAYS}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small residual network that knows the digits: task, converted network, context."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    task = trained_task(TinyCnn(), epochs=3)
    graph = float_graph(task.model, task, opset=20, ir_version=10)[0]
    converted = convert_graph(task, graph, "tflite", folder)
    return task, converted, context_of(task, converted.graph, folder, max_drop=0.02)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    return calibrated_task(Vit(), (1, 1, 16, 16), tmp_path_factory.mktemp("transformer"))


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    return calibrated_task(Recurrent(nn.GRU), (1, 8, 16), tmp_path_factory.mktemp("recurrent"))


def calibrated_task(network, shape, folder):
    torch.manual_seed(0)
    calls = [tuple(call.values()) for call in calls_of(task_of(network, [noise(*shape)]), 8)]
    task, converted = converted_of(network, calls[0], "tflite", folder, calls=calls)
    return task, converted, context_of(task, converted.graph, folder)


def made(name, subject, folder, **settings):
    task, converted, context = subject
    way, asked = BY_NAME[name], Settings(**settings)
    assert way.why_not(converted, asked, context) == ""
    return way.make(converted, asked, task, context, fresh(folder))


def agreement(subject, artifact):
    """dB of the output that agrees least with the float artifact's, all being float."""
    task, converted, _ = subject
    before, after, worst = converted.artifact.open(), artifact.open(), np.inf
    for call in calls_of(task, 4):
        got = after(call)
        assert {array.dtype.name for array in got} == {"float32"}
        worst = min([worst, *(snr_db([a], [b]) for a, b in zip(before(call), got, strict=True))])
    return worst


@pytest.mark.parametrize(
    ("name", "settings", "floor_db", "smaller", "in_float"),
    [
        ("aeq-static", {}, 30, 2.5, 0),
        ("aeq-static", {"activations": "int16"}, 35, 2.5, 0),
        ("pt2e", {}, 30, 2.5, 0),
        ("aeq-dynamic", {}, 35, 2.5, 0),
        ("aeq-weight-only", {}, 35, 2.5, 5),
        ("aeq-weight-only", {"weights": "int4"}, 12, 3.5, 5),
    ],
)
def test_each_way_is_smaller_and_near_to_float(
    name, settings, floor_db, smaller, in_float, trained, tmp_path
):
    artifact = made(name, trained, tmp_path, **settings)
    assert agreement(trained, artifact) > floor_db
    assert trained[1].artifact.size_bytes > smaller * artifact.size_bytes
    assert BY_NAME[name].left_in_float(artifact) == in_float
    types = [detail.inputs for detail in operators(artifact.path)]
    assert any("INT8" in inputs or "INT4" in inputs for inputs in types)


def test_weights_have_a_scale_for_each_channel(trained, tmp_path):
    found = operators(made("aeq-static", trained, tmp_path).path)
    assert [one.scales for one in found if one.kind == "CONV_2D"] == [32, 32, 32]


def test_a_transformer_stays_within_xnnpack(transformer, tmp_path):
    """Quantized whole, its normalisations, softmax and GELU would leave it for far slower kernels."""
    _, converted, context = transformer
    whole = prepare(converted, Settings(), context, layers_only=False)
    assert {"SOFTMAX", "GELU", "RSQRT"} & set(kinds(converted.artifact.path)) - set(whole.kinds)
    assert "FULLY_CONNECTED" in whole.kinds
    for name in ("aeq-static", "aeq-layers"):
        artifact = made(name, transformer, tmp_path)
        assert partitions(artifact.path.read_bytes()) == 1
        assert left_in_float(artifact) == 0
    assert agreement(transformer, artifact) > 25


def test_an_output_that_is_read_inside_stays_float(recurrent, tmp_path):
    for name in ("aeq-static", "aeq-layers"):
        assert agreement(recurrent, made(name, recurrent, tmp_path)) > 25


def test_ranges_are_the_extremes_of_all_calls(trained):
    _, converted, _ = trained
    calls = [{"x": np.full((1, 1, 16, 16), value, np.float32)} for value in (0.1, -3, 5, 0.2)]
    ranges = activation_ranges(converted.artifact.path, calls)
    place = next(name for name in ranges if "args_0" in name)
    assert (ranges[place]["min"].item(), ranges[place]["max"].item()) == (-3, 5)


def test_int4_weights_of_dense_layers_have_groups(transformer, tmp_path):
    assert agreement(transformer, made("aeq-dynamic", transformer, tmp_path, weights="int4")) > 12


@pytest.mark.parametrize(
    ("name", "settings", "changes", "reason"),
    [
        ("aeq-static", {"weights": "int4"}, {}, "int4 weights need method weight-only or dynamic"),
        ("aeq-static", {"ranges": "entropy"}, {}, "LiteRT's quantizer has no entropy ranges, only min-max"),
        ("aeq-static", {"smooth_quant": 0.5}, {}, "SmoothQuant is there for openvino and onnxruntime only"),
        (
            "aeq-static",
            {},
            {"calls": ()},
            "needs calibration data; give --calibration, or use method dynamic",
        ),
        (
            "aeq-static",
            {"revert": True},
            {"max_drop": None},
            "revert needs a limit of quality, and the budget names none",
        ),
        (
            "aeq-layers",
            {},
            {},
            "all that stands between the layers has integer kernels: route aeq-static",
        ),
        (
            "aeq-mixed",
            {},
            {},
            "neither a limit of size nor one of latency says how many layers may stay in float",
        ),
        (
            "pt2e",
            {"activations": "int16"},
            {},
            "LiteRT's PT2E quantizer has no int16 activations; route aeq-static has",
        ),
        ("pt2e", {"revert": True}, {}, "layers are put back to float by route aeq-static"),
        (
            "aeq-dynamic",
            {"weights": "int4", "group_size": 48},
            {},
            "LiteRT has no kernel for groups of 48 weights (known: 32, 64, 128, 256)",
        ),
        ("aeq-dynamic", {"activations": "int16"}, {}, "int16 activations need method static"),
        ("aeq-weight-only", {"revert": True}, {}, "layers are put back to float with method static"),
    ],
)
def test_what_a_way_has_not_is_said(name, settings, changes, reason, trained):
    _, converted, context = trained
    found = BY_NAME[name].why_not(converted, Settings(**settings), replace(context, **changes))
    assert found == reason


def test_a_network_without_layers_is_not_for_any_way(tmp_path):
    class Sum(nn.Module):
        def forward(self, x):
            return x + x.mean()

    subject = calibrated_task(Sum(), (1, 8), tmp_path)
    for way in WAYS[:1] + WAYS[4:6]:
        assert (
            way.why_not(subject[1], Settings(), subject[2]) == "no convolution or matrix product to quantize"
        )


def test_layers_are_put_back_until_the_quality_holds(trained, tmp_path):
    task, converted, context = trained
    before = converted.artifact.open()
    calls = calls_of(task, 8)
    wanted = 10 ** (-agreement(trained, made("aeq-static", trained, tmp_path)) / 10) / 4

    def measure(run):
        error = max(10 ** (-snr_db(before(call), run(call)) / 10) for call in calls)
        return Quality(kind="signal-to-noise", score=0.0, drop=error)

    subject = task, converted, replace(context, measure=measure, max_drop=wanted)
    artifact = made("aeq-static", subject, tmp_path, revert=True)
    assert 0 < left_in_float(artifact) < 5
    assert measure(artifact.open()).drop <= wanted


def test_a_limit_that_no_layer_in_float_helps_is_refused(trained, tmp_path):
    task, converted, context = trained
    lost = replace(context, measure=lambda _run: Quality(kind="accuracy", score=0.1, drop=0.9))
    with pytest.raises(BadInput, match="with every layer in float the loss of quality is still over"):
        made("aeq-static", (task, converted, lost), tmp_path, revert=True)


def test_a_size_limit_is_filled_with_the_layers_that_hurt_most(trained, tmp_path):
    task, converted, context = trained
    small, large = made("aeq-static", trained, tmp_path).size_bytes, converted.artifact.size_bytes
    most = (small + large) / 2
    subject = task, converted, replace(context, most_bytes=most)
    artifact = made("aeq-mixed", subject, tmp_path)
    assert small < artifact.size_bytes <= most
    assert left_in_float(artifact) > 0
    tight = task, converted, replace(context, most_bytes=small - 1)
    with pytest.raises(BadInput, match="over the limits with every layer in int8"):
        made("aeq-mixed", tight, tmp_path)


def test_training_with_rounding_gives_an_int8_file(trained, tmp_path):
    artifact = made("qat", trained, tmp_path, epochs=1)
    assert left_in_float(artifact) == 0
    assert agreement(trained, artifact) > 15
