from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from networks import DsCnn, Recurrent, UNet, Vit, accuracy, calibrated, calls_of, noise
from onnx import numpy_helper
from steps import built, context_of, convert_graph, fresh
from torch import nn

from edgekit.compress.quantization.onnxruntime_ways import WAYS
from edgekit.compress.quantization.settings import Settings
from edgekit.errors import BadInput
from edgekit.graph.fusion import (
    count_float_nodes,
    count_integer_nodes,
    dequantizing_nodes,
    optimised,
    unfused_nodes,
)
from edgekit.verify import check_graph

BY_NAME = {way.name: way for way in WAYS}
STATIC = ("nncf", "ort-static")


@pytest.fixture
def quantized(tmp_path):
    """What one way makes of a task's float graph."""

    def make(name, task, graph, settings=None, **changes):
        converted = convert_graph(task, graph, "onnxruntime", tmp_path)
        context = context_of(task, graph, tmp_path, **changes)
        way, settings = BY_NAME[name], settings or Settings()
        why = way.why_not(converted, settings, context)
        assert why == "", why
        artifact = way.make(converted, settings, task, context, fresh(tmp_path))
        assert artifact.inputs == converted.artifact.inputs
        assert artifact.outputs == converted.artifact.outputs
        return onnx.load(artifact.path)

    return make


@pytest.fixture
def why_not(tmp_path):
    def ask(name, task, graph, settings, **changes):
        converted = convert_graph(task, graph, "onnxruntime", tmp_path)
        return BY_NAME[name].why_not(converted, settings, context_of(task, None, tmp_path, **changes))

    return ask


@pytest.mark.parametrize("name", STATIC)
def test_a_static_way_leaves_no_layer_in_float_and_no_accuracy_behind(name, tiny_cnn, tiny_graph, quantized):
    small = quantized(name, tiny_cnn, tiny_graph)
    assert count_float_nodes(optimised(small)) == 0
    assert accuracy(small) >= accuracy(tiny_graph) - 0.02
    assert tiny_graph.ByteSize() / small.ByteSize() > 2.5


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ort-static", {"ranges": "percentile"}),
        ("ort-static", {"ranges": "entropy"}),
        ("nncf", {"ranges": "percentile"}),
        ("nncf", {"bias_correction": "fast"}),
        ("nncf", {"bias_correction": "none"}),
    ],
)
def test_ranges_and_bias_correction_change_the_numbers_and_keep_the_accuracy(
    name, settings, tiny_cnn, tiny_graph, quantized
):
    given = Settings(bias_correction="none") if "ranges" in settings else Settings()
    usual = quantized(name, tiny_cnn, tiny_graph, given)
    other = quantized(name, tiny_cnn, tiny_graph, Settings(**{"bias_correction": "none", **settings}))
    if "ranges" in settings:
        assert other.SerializeToString() != usual.SerializeToString()
    assert accuracy(other) >= accuracy(tiny_graph) - 0.02


@pytest.mark.parametrize("name", [*STATIC, "ort-dynamic", "ort-weight-only"])
def test_the_same_input_gives_the_same_bytes_and_nothing_beside(
    name, tiny_cnn, tiny_graph, quantized, tmp_path, monkeypatch
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    calls = calls_of(tiny_cnn, 8)
    once, twice = (quantized(name, tiny_cnn, tiny_graph, calls=calls) for _ in range(2))
    assert once.SerializeToString(deterministic=True) == twice.SerializeToString(deterministic=True)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", STATIC)
def test_weights_of_seven_bits_are_smaller_numbers(name, tiny_cnn, tiny_graph, quantized):
    def largest(graph):
        arrays = [
            numpy_helper.to_array(t) for t in graph.graph.initializer if t.data_type == onnx.TensorProto.INT8
        ]
        return max(int(np.abs(array.astype(int)).max()) for array in arrays if array.ndim > 1)

    settings = Settings(bias_correction="none")
    whole, reduced = (quantized(name, tiny_cnn, tiny_graph, settings, reduce_range=r) for r in (False, True))
    assert largest(whole) > 100
    assert largest(reduced) <= 64


@pytest.mark.parametrize("name", STATIC)
def test_a_depthwise_network_is_fused_whole(name, quantized):
    network = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.ReLU6(), nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU6(),
        nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    calls = [(noise(1, 3, 12, 12, seed=seed),) for seed in range(8)]
    task, model = built(calibrated(network, 3, 12, 12), calls[0], calls=calls)
    small = quantized(name, task, model)
    assert count_float_nodes(optimised(small)) == 0
    check_graph("float32 -> int8", model, small, calls_of(task, 4), 20)


def test_the_guard_catches_what_nncf_makes_of_a_depthwise_network_by_itself():
    import nncf

    torch.manual_seed(0)
    task, model = built(calibrated(DsCnn(), 1, 49, 10), [noise(1, 1, 49, 10)])
    usual = nncf.quantize(model, nncf.Dataset(calls_of(task, 4)), subset_size=4)
    left = unfused_nodes(optimised(usual))
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    assert len(left) >= 2
    assert set(left) <= convolutions


def test_a_transposed_convolution_stays_float_beside_int8_neighbours(quantized):
    torch.manual_seed(0)
    task, model = built(
        calibrated(UNet(), 3, 16, 16), [noise(1, 3, 16, 16)], calls=[(noise(1, 3, 16, 16),)] * 4
    )
    small = quantized("ort-static", task, model)
    runs = optimised(small)
    assert count_integer_nodes(runs) >= 2
    assert unfused_nodes(runs) == []
    assert dequantizing_nodes(runs) == []
    check_graph("float32 -> int8", model, small, calls_of(task, 4), 15)


@pytest.mark.parametrize("smooth", [None, 0.0, 0.7])
def test_the_products_of_a_transformer_compute_on_integers(smooth, quantized):
    torch.manual_seed(0)
    calls = [(noise(1, 1, 16, 16, seed=seed),) for seed in range(8)]
    task, model = built(Vit(), calls[0], calls=calls)
    small = quantized("nncf", task, model, Settings(smooth_quant=smooth, bias_correction="none"))
    runs = optimised(small)
    gemms = sum(node.op_type == "Gemm" for node in model.graph.node)
    assert count_integer_nodes(runs) >= gemms >= 8
    assert dequantizing_nodes(runs) == []
    check_graph("float32 -> int8", model, small, calls_of(task, 4), 15)


def test_a_layer_that_the_dynamic_way_passes_over_counts_as_left_in_float(tiny_cnn, tiny_graph, quantized):
    small = quantized("ort-dynamic", tiny_cnn, tiny_graph)
    convolutions = sum(node.op_type == "Conv" for node in small.graph.node)
    assert count_float_nodes(optimised(small)) >= convolutions > 0


@pytest.mark.parametrize(("weights", "ratio", "floor_db"), [("int8", 2.5, 35), ("int4", 3.0, 15)])
def test_weights_alone_in_integers_make_the_file_smaller(weights, ratio, floor_db, quantized):
    torch.manual_seed(0)
    task, model = built(Vit(64), [noise(1, 1, 16, 16)])
    small = quantized("ort-weight-only", task, model, Settings(weights=weights))
    assert model.ByteSize() / small.ByteSize() > ratio
    products = [node for node in small.graph.node if node.op_type == "MatMulNBits"]
    assert {a.i for n in products for a in n.attribute if a.name == "bits"} == {int(weights[-1])}
    check_graph("float32 -> weights", model, small, calls_of(task, 4), floor_db)


def test_under_a_size_limit_the_most_sensitive_weights_get_eight_bits(quantized):
    torch.manual_seed(0)
    calls = [(noise(1, 1, 16, 16, seed=seed),) for seed in range(4)]
    task, model = built(Vit(64), calls[0], calls=calls)
    narrow = quantized("ort-weight-only", task, model, Settings(weights="int4"))
    wide = quantized("ort-weight-only", task, model, Settings(weights="int8"))
    limit = (narrow.ByteSize() + wide.ByteSize()) / 2
    mixed = quantized("ort-weight-only", task, model, Settings(weights="int4"), most_bytes=limit)
    assert narrow.ByteSize() < mixed.ByteSize() <= limit
    widths = [
        a.i for n in mixed.graph.node if n.op_type == "MatMulNBits" for a in n.attribute if a.name == "bits"
    ]
    assert set(widths) == {4, 8}
    far, near = (
        check_graph("weights", model, graph, calls_of(task, 4), 5).snr_db for graph in (narrow, mixed)
    )
    assert near > far


def test_filters_alone_in_integers_make_a_convolutional_network_smaller(tiny_cnn, tiny_graph, quantized):
    small = quantized("ort-weight-only", tiny_cnn, tiny_graph)
    assert tiny_graph.ByteSize() / small.ByteSize() > 3
    assert accuracy(small) >= accuracy(tiny_graph) - 0.01
    check_graph("float32 -> weights", tiny_graph, small, calls_of(tiny_cnn, 4), 30)


def test_layers_in_float_fill_the_size_that_is_allowed(tiny_cnn, tiny_graph, quantized):
    whole = tiny_graph.ByteSize()
    small = quantized("ort-mixed", tiny_cnn, tiny_graph, most_bytes=0.8 * whole)
    assert 0.35 * whole < small.ByteSize() <= 0.8 * whole
    assert count_float_nodes(optimised(small)) > 0
    assert count_integer_nodes(optimised(small)) > 0
    assert unfused_nodes(optimised(small)) == []


@pytest.mark.parametrize(
    ("name", "settings", "changes", "reason"),
    [
        ("nncf", {"ranges": "entropy"}, {}, "nncf has no entropy ranges"),
        ("nncf", {"weights": "int4"}, {}, "onnxruntime computes on int8, not on int4"),
        ("ort-static", {"activations": "int16"}, {}, "no kernels for int16 activations"),
        ("ort-static", {"smooth_quant": 0.5}, {}, "no SmoothQuant of its own"),
        ("ort-static", {}, {"calls": ()}, "needs calibration data; give --calibration"),
        ("ort-mixed", {}, {}, "neither a limit of size nor one of latency"),
        ("ort-dynamic", {"revert": True}, {}, "put back to float with method static"),
        ("ort-dynamic", {"smooth_quant": 0.5}, {}, "SmoothQuant goes with method static"),
        ("ort-weight-only", {"weights": "int4", "group_size": 48}, {}, "no kernel for groups of 48 weights"),
        ("ort-weight-only", {"activations": "int16"}, {}, "activations stay float"),
    ],
)
def test_settings_that_a_way_has_not_are_refused_in_one_line(
    name, settings, changes, reason, tiny_cnn, tiny_graph, why_not
):
    said = why_not(name, tiny_cnn, tiny_graph, Settings(**settings), **changes)
    assert reason in said
    assert "\n" not in said
    assert BY_NAME[name].name == name


def test_networks_that_no_way_fits_say_why(why_not):
    for network, shape, name, reason in (
        (nn.ReLU(), (1, 4), "ort-static", "no convolution or matrix product to quantize"),
        (nn.ReLU(), (1, 4), "ort-weight-only", "no convolution or matrix product to quantize"),
        (Recurrent(nn.GRU), (1, 5, 16), "ort-weight-only", ""),
        (nn.GRU(16, 8), (5, 1, 16), "ort-static", "recurrent layers alone are heavy"),
        (nn.GRU(16, 8), (5, 1, 16), "ort-dynamic", "dynamic kernels for matrix products and LSTMs only"),
        (nn.Conv2d(3, 4, 3), (1, 3, 5, 5), "ort-dynamic", "dynamic kernels for matrix products"),
    ):
        task, model = built(network, [noise(*shape)])
        said = why_not(name, task, model, Settings())
        assert reason in said
        assert bool(said) == bool(reason)


def test_weights_out_of_reach_are_given_as_the_reason(tiny_cnn, why_not):
    text = (
        '<ir_version: 9, opset_import: ["": 17]> g (float[1,4] x, bool more) => (float[1,4] y) '
        "{ y = If (more) <then_branch = a () => (float[1,4] p) { p = MatMul(x, w) }, "
        "else_branch = b () => (float[1,4] q) { q = MatMul(x, w) }> }"
    )
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(noise(4, 4), "w"))
    for name in ("nncf", "ort-static", "ort-dynamic", "ort-weight-only"):
        assert "inside If or Loop bodies" in why_not(name, replace(tiny_cnn, model=model), model, Settings())


def test_calibration_that_does_not_fit_is_one_line(tiny_cnn, tiny_graph, quantized):
    for calls in ([{"x": noise(1, 2, 16, 16)}], [{"wrong": noise(1, 1, 16, 16)}]):
        with pytest.raises(BadInput) as refusal:
            quantized("ort-static", tiny_cnn, tiny_graph, calls=calls)
        assert len(str(refusal.value).splitlines()) == 1
