import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.cost import judge
from edgekit.graph.layers import Layer
from edgekit.plan.cost_model import layer_times_ms, predict, speed_up
from edgekit.target import load_profile, load_target

LAYERS = Path(__file__).parents[2] / "benchmarks" / "data" / "layers.csv"
BOARDS = ["rpi4", "rpi5", "rpi3", "rpi-zero2w", "jetson-nano", "jetson-orin-nano", "android-mid", "x86-cpu"]
KINDS = ["dense", "pointwise", "depthwise", "grouped", "gemm", "recurrent", "elementwise", "layout", "other"]
COUNTS = st.integers(0, 10**9)


def a_layer(**changes):
    values = {
        "name": "conv",
        "op": "Conv",
        "kind": "dense",
        "macs": 10**8,
        "params": 10**5,
        "input_elements": 10**5,
        "output_elements": 10**5,
        "precision": "float32",
        "channels": 64,
    }
    return Layer(**{**values, **changes})


def network(name, precision):
    """The layers of a public network, from the data that the profiles were fitted to."""
    with LAYERS.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["network"] == name]
    counts = ("macs", "params", "input_elements", "output_elements")
    return [
        a_layer(kind=row["kind"], precision=precision, **{key: int(row[key]) for key in counts})
        for row in rows
        for _ in range(int(row["count"]))
    ]


def p50(layers, board, threads=4, runtime="onnxruntime"):
    return predict(layers, load_profile(board), runtime=runtime, threads=threads).latency_p50_ms


# Published for the Raspberry Pi 4, 4 threads; fastest and slowest of XNNPACK, ncnn, ArmNN, TFLite, PyTorch.
PUBLISHED = [
    ("mobilenet_v2_1.0@224", "float32", 41, 73),
    ("mobilenet_v2_1.0@224", "int8", 17, 40),
    ("mobilenet_v1_1.0@224", "float32", 53, 91),
    ("mobilenet_v1_1.0@224", "int8", 24, 34),
    ("resnet18@224", "float32", 100, 176),
    ("resnet18@224", "int8", 84, 98),
    ("resnet50_v1@224", "float32", 225, 263),
    ("resnet50_v1@224", "int8", 197, 197),
]


@pytest.mark.parametrize(("name", "precision", "fastest", "slowest"), PUBLISHED)
def test_the_interval_on_the_raspberry_pi_4_holds_what_is_published(name, precision, fastest, slowest):
    figure = p50(network(name, precision), "rpi4")
    assert figure.low < fastest <= slowest < figure.high


# TFLite of the MLPerf Inference logs and XNNPACK, whose kernels LiteRT runs; Raspberry Pi 4, 4 threads.
@pytest.mark.parametrize(
    ("name", "precision", "fastest", "slowest"),
    [
        ("mobilenet_v2_1.0@224", "float32", 41, 57),
        ("mobilenet_v2_1.0@224", "int8", 20, 30),
        ("mobilenet_v1_1.0@224", "float32", 72, 75),
    ],
)
def test_the_interval_of_tflite_on_the_raspberry_pi_4_holds_what_is_published_of_it(
    name, precision, fastest, slowest
):
    figure = p50(network(name, precision), "rpi4", runtime="tflite")
    assert figure.low < fastest <= slowest < figure.high


def test_each_runtime_of_a_board_has_its_own_latency_and_says_which():
    layers, profile = network("mobilenet_v2_1.0@224", "int8"), load_profile("rpi5")
    found = {name: p50(layers, "rpi5", runtime=name) for name in profile.cost_model}
    assert len({figure.value for figure in found.values()}) == len(found) == 3
    assert {name: figure.source for name, figure in found.items()} == {
        name: f"cost model of rpi5, {name}, 4 threads" for name in found
    }


def test_of_a_runtime_without_coefficients_no_latency_is_predicted_but_the_size_is():
    layers = network("resnet18@224", "float32")
    cost = predict(layers, load_profile("rpi4"), runtime="openvino", threads=4)
    assert [name for name, _ in cost.known()] == ["size_mb"]
    assert layer_times_ms(layers, load_profile("rpi4"), runtime="openvino", threads=4) is None


def test_of_a_precision_whose_gain_is_unknown_no_latency_is_predicted():
    layers = network("resnet18@224", "float32")
    assert p50(layers, "rpi5", runtime="executorch") is not None
    halves = [replace(layers[0], precision="float16"), *layers[1:]]
    assert p50(halves, "rpi5", runtime="executorch") is None
    brain = [replace(layer, precision="bfloat16") for layer in layers]
    cost = predict(brain, load_profile("x86-cpu"), runtime="openvino", threads=1)
    assert [name for name, _ in cost.known()] == ["size_mb"]


def test_threads_change_nothing_on_a_gpu_and_float16_gains_there():
    layers = network("resnet50_v1.5@224", "float32")
    board, halves = "jetson-orin-nano", [replace(layer, precision="float16") for layer in layers]
    one, six = (p50(layers, board, threads, "tensorrt").value for threads in (1, 6))
    assert one == six
    assert p50(halves, board, 1, "tensorrt").value < one < p50(layers, board, 6, "tflite").value


def test_the_interval_of_tensorrt_on_the_orin_nano_holds_what_is_published_of_the_orin_nx_at_its_clock():
    # ResNet-50 in int8: 1.08 ms at 918 MHz of the GPU (MLPerf Inference v3.0), which are 1.6 at 625.
    figure = p50(network("resnet50_v1.5@224", "int8"), "jetson-orin-nano", 1, "tensorrt")
    assert figure.low < 1.08 * 918 / 625 < figure.high


@pytest.mark.parametrize("name", ["mobilenet_v2_1.0@224", "resnet18@224"])
@pytest.mark.parametrize("board", BOARDS)
def test_int8_gains_on_every_board_and_no_more_than_four_times(board, name):
    whole, eighth = p50(network(name, "float32"), board), p50(network(name, "int8"), board)
    assert 1.1 < whole.value / eighth.value <= 4


@pytest.mark.parametrize("board", BOARDS)
def test_float16_is_not_foreseen_to_gain_where_the_runtime_does_not(board):
    layers = network("mobilenet_v2_1.0@224", "float32")
    halves = [replace(layer, precision="float16") for layer in layers]
    assert p50(halves, board).value >= p50(layers, board).value


def test_the_boards_come_in_the_order_of_what_is_published_for_them():
    layers = network("mobilenet_v2_1.0@224", "float32")
    order = ["rpi5", "rpi4", "rpi3", "rpi-zero2w"]
    times = [p50(layers, board).value for board in order]
    assert times == sorted(times)


@pytest.mark.parametrize("board", BOARDS)
def test_more_threads_are_never_slower_and_never_gain_more_than_their_number(board):
    layers = network("resnet18@224", "float32")
    times = [p50(layers, board, threads).value for threads in (1, 2, 3, 4, 8, 64)]
    assert times == sorted(times, reverse=True)
    cores = load_profile(board).cores
    assert times[-1] == p50(layers, board, cores).value
    for model in load_profile(board).cost_model.values():
        assert 1 <= speed_up(model, cores) <= cores


@given(
    kind=st.sampled_from(KINDS),
    precision=st.sampled_from(["float32", "float16", "int8"]),
    counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
    more=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
)
def test_more_work_never_takes_less_time_and_every_layer_costs_something(kind, precision, counts, more):
    names = ("macs", "params", "input_elements", "output_elements")
    less = a_layer(kind=kind, precision=precision, **dict(zip(names, counts, strict=True)))
    total = [one + other for one, other in zip(counts, more, strict=True)]
    greater = replace(less, **dict(zip(names, total, strict=True)))
    times = layer_times_ms([less, greater], load_profile("rpi4"), runtime="onnxruntime", threads=4)
    assert 0 < times[0] <= times[1]


def test_the_latency_is_the_sum_of_the_layers():
    layers = network("mobilenet_v1_0.25@128", "float32")
    times = layer_times_ms(layers, load_profile("rpi4"), runtime="onnxruntime", threads=2)
    assert p50(layers, "rpi4", 2).value == pytest.approx(sum(times))


def test_percentiles_rise_and_every_figure_says_that_it_is_predicted_and_by_what():
    cost = predict(network("resnet18@224", "int8"), load_profile("rpi4"), runtime="onnxruntime", threads=1)
    values = [cost.latency_p50_ms.value, cost.latency_p90_ms.value, cost.latency_p99_ms.value]
    assert values == sorted(values)
    assert {name for name, _ in cost.known()} == {
        "latency_p50_ms",
        "latency_p90_ms",
        "latency_p99_ms",
        "size_mb",
    }
    for _, figure in cost.known():
        assert figure.how == "predicted"
        assert figure.low <= figure.value <= figure.high
    assert cost.latency_p90_ms.source == "cost model of rpi4, onnxruntime, 1 thread"


def test_a_limit_inside_the_interval_is_unproven_and_one_above_it_predicted():
    target = load_target("rpi4")
    cost = predict(network("mobilenet_v1_0.25@128", "int8"), target.profile, runtime="onnxruntime", threads=4)
    statuses = {verdict.name: verdict.status for verdict in judge(cost, target.budget)}
    assert statuses["latency_p90_ms"] == "PREDICTED"
    tight = target.with_limits({"latency_p90_ms": cost.latency_p90_ms.value}, "--latency")
    assert {v.name: v.status for v in judge(cost, tight.budget)}["latency_p90_ms"] == "UNPROVEN"


def test_a_network_of_no_layers_costs_nothing():
    cost = predict([], load_profile("rpi4"), runtime="onnxruntime", threads=4)
    assert (cost.latency_p99_ms.value, cost.size_mb.value) == (0, 0)


@pytest.mark.parametrize(
    ("name", "precision", "written_mb"),
    # Files that torch.onnx and onnxruntime's static QDQ, u8s8 per channel, wrote of these networks.
    [
        ("mobilenet_v2_1.0@224", "float32", 13.98),
        ("mobilenet_v1_0.25@128", "float32", 1.88),
        ("resnet18@224", "float32", 46.75),
        ("resnet18@224", "int8", 11.82),
    ],
)
def test_the_size_is_near_to_that_of_files_that_were_written(name, precision, written_mb):
    cost = predict(network(name, precision), load_profile("rpi4"), runtime="onnxruntime", threads=4)
    assert cost.size_mb.value == pytest.approx(written_mb, rel=0.03)


def test_weights_that_layers_share_are_in_the_file_once():
    layers = [a_layer(params=10**6), *[a_layer(params=10**6, own_share=0.0)] * 5]
    cost = predict(layers, load_profile("rpi4"), runtime="onnxruntime", threads=4)
    assert 4 <= cost.size_mb.low <= cost.size_mb.high < 4.5


@pytest.mark.parametrize("op", ["Loop", "Scan"])
def test_no_latency_is_predicted_where_a_loop_hides_the_work(op):
    profile = load_profile("rpi4")
    found = predict([a_layer(), a_layer(op=op, kind="other")], profile, runtime="onnxruntime", threads=1)
    assert found.latency_p90_ms is None
    assert found.size_mb is not None
