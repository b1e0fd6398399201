from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Encoder, Recurrent, accuracy, calls_of, noise, task_of
from steps import built, by_way, context_of, convert_graph
from torch import nn

from edgekit.artifact import Artifact, Converted
from edgekit.compress.calls import spread
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.ways import possible_ways, ways_of
from edgekit.compress.quantize import SAME_SPEED, Attempt, Quantize, choose
from edgekit.errors import BadInput
from edgekit.graph.fusion import count_float_nodes, count_integer_nodes, optimised
from edgekit.graph.prepare import is_quantized
from edgekit.result import Route
from edgekit.verify import check_graph

BY_ITSELF = [way.name for way in ways_of("onnxruntime") if way.by_itself]


@pytest.fixture
def quantized(tmp_path):
    """What the step makes of a float graph for onnxruntime, with the context that tells of it."""

    def quantize(task, graph, step=None, **changes):
        converted = convert_graph(task, graph, "onnxruntime", tmp_path)
        context = context_of(task, graph, tmp_path, **changes)
        return (step or Quantize()).apply(converted, task, context), context

    return quantize


@pytest.fixture
def possible(tmp_path):
    """The names of the ways that fit a network and settings, and why others do not."""

    def ask(task, graph, settings=None):
        converted = convert_graph(task, graph, "onnxruntime", tmp_path)
        ways, reasons = possible_ways(converted, settings or Settings(), context_of(task, None, tmp_path))
        return [way.name for way in ways], reasons

    return ask


def test_the_best_route_is_kept_and_all_are_told(tiny_cnn, tiny_graph, quantized):
    before = tiny_graph.SerializeToString()
    artifact, context = quantized(tiny_cnn, tiny_graph)
    assert {route.name for route in context.routes} == set(BY_ITSELF)
    (chosen,) = [route for route in context.routes if route.chosen]
    assert chosen.drop <= 0.05
    assert chosen.size_ratio > 2.5
    assert all(route.reason for route in context.routes)
    small = onnx.load(artifact.path)
    assert artifact.runtime == "onnxruntime"
    assert (artifact.inputs, artifact.outputs) == (("x",), ("scores",))
    assert count_integer_nodes(optimised(small)) >= 4
    assert chosen.left_in_float == count_float_nodes(optimised(small))
    assert accuracy(small) >= accuracy(tiny_graph) - 0.01
    assert tiny_graph.SerializeToString() == before


def test_one_route_alone_is_tried_where_it_is_asked_for(tiny_cnn, tiny_graph, quantized):
    artifact, context = quantized(tiny_cnn, tiny_graph, Quantize(route="ort-static"))
    assert [(route.name, route.chosen) for route in context.routes] == [("ort-static", True)]
    once, twice = artifact, quantized(tiny_cnn, tiny_graph, Quantize(route="ort-static"))[0]
    assert once.path.read_bytes() == twice.path.read_bytes()


def test_token_numbers_are_quantized_around(quantized):
    task, model = built(Encoder(), [np.arange(12)[None]])
    calls = [{"x": np.random.default_rng(seed).integers(0, 100, (1, 12))} for seed in range(8)]
    artifact, context = quantized(task, model, calls=calls, max_drop=None)
    assert {route.name for route in context.routes} == set(BY_ITSELF)
    assert [route for route in context.routes if route.latency_ratio is None] == [], "one failed"
    check_graph("float32 -> int8", model, onnx.load(artifact.path), calls, 15)


def test_an_lstm_is_quantized_dynamically_and_becomes_smaller(quantized):
    task, model = built(Recurrent(nn.LSTM), [noise(1, 20, 16)], dynamic={"x": {1: "time"}})
    artifact, _ = quantized(task, model, Quantize(method="dynamic"))
    small = onnx.load(artifact.path)
    assert count_integer_nodes(optimised(small)) > 0
    assert model.ByteSize() / small.ByteSize() > 2
    check_graph("float32 -> int8", model, small, [{"x": noise(1, 9, 16)}], 20)


@pytest.mark.parametrize("name", ["nncf", "ort-static", "ort-dynamic", "ort-weight-only"])
def test_a_file_that_is_quantized_already_is_left_alone(name, tiny_cnn, tiny_graph, quantized, tmp_path):
    small = by_way(name, tiny_cnn, tiny_graph, tmp_path, calls_of(tiny_cnn, 8))
    assert is_quantized(small)
    file = task_of(small, tiny_cnn.example, calls=tiny_cnn.calibration)
    with pytest.raises(BadInput, match=r"^the model of net: it is quantized already and is left alone$"):
        quantized(file, small)


def test_a_static_route_without_calibration_says_what_to_give(tiny_cnn, tiny_graph, quantized):
    bare = replace(tiny_cnn, calibration=None)
    with pytest.raises(
        BadInput, match=r"^quantize net: nncf: needs calibration data; give --calibration, or use method dyn"
    ):
        quantized(bare, tiny_graph, Quantize(route="nncf"))


def test_only_static_routes_need_calibration(tiny_cnn, tiny_graph, possible):
    names, reasons = possible(replace(tiny_cnn, calibration=None), tiny_graph)
    assert names == ["ort-dynamic", "ort-weight-only"]
    assert len([reason for reason in reasons if "needs calibration data" in reason]) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"route": "ort-statik"}, "onnxruntime has no route `ort-statik`, did you mean `ort-static`?"),
        ({"route": "nncf", "ranges": "entropy"}, "nncf: nncf has no entropy ranges; route ort-static has"),
        ({"method": "static", "activations": "int16"}, "no kernels for int16 activations"),
    ],
    ids=["route", "ranges", "activations"],
)
def test_settings_that_the_runtime_lacks_are_refused_with_what_has_them(
    settings, said, tiny_cnn, tiny_graph, quantized
):
    with pytest.raises(BadInput) as refusal:
        quantized(tiny_cnn, tiny_graph, Quantize(**settings))
    line = str(refusal.value)
    assert line.startswith("quantize net: ")
    assert said in line
    assert len(line.splitlines()) == 1


def test_a_method_that_the_runtime_lacks_is_refused_with_those_that_it_has(tiny_cnn, tmp_path):
    artifact = Artifact(runtime="tensorrt", path=tmp_path / "model.onnx", inputs=("x",), outputs=("y",))
    converted = Converted(graph=artifact.path, artifact=artifact)
    found = possible_ways(converted, Settings(method="dynamic"), context_of(tiny_cnn, None, tmp_path))
    assert found == ((), ("tensorrt has no method `dynamic` (known: static, qat)",))


def test_weights_out_of_reach_are_given_as_the_reason(quantized):
    text = (
        '<ir_version: 9, opset_import: ["": 17]> g (float[1,4] x, bool more) => (float[1,4] y) '
        "{ y = If (more) <then_branch = a () => (float[1,4] p) { p = MatMul(x, w) }, "
        "else_branch = b () => (float[1,4] q) { q = MatMul(x, w) }> }"
    )
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(noise(4, 4), "w"))
    with pytest.raises(BadInput, match=r"the weights lie inside If or Loop bodies, where no quantizer"):
        quantized(task_of(model, [noise(1, 4), np.array(True)]), model)


def test_a_network_without_a_heavy_layer_has_no_route(possible):
    names, reasons = possible(*built(nn.ReLU(), [noise(1, 4)]))
    assert names == []
    assert "nncf: no convolution or matrix product to quantize" in reasons


def test_a_route_that_fails_is_told_and_the_others_go_on(quantized):
    class Correlation(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 16, 3)

        def forward(self, x):
            y = self.conv(x).relu().flatten(2)
            return y @ y.transpose(1, 2)  # a matrix product without a weight, which the dynamic route needs

    task, model = built(Correlation(), [noise(1, 1, 8, 8)])
    _, context = quantized(task, model, calls=calls_of(task), max_drop=None)
    reasons = {route.name: route.reason for route in context.routes}
    assert reasons["ort-dynamic"] == "nothing was quantized: no node computes on integers"
    assert [route.chosen for route in context.routes].count(True) == 1


def test_a_route_that_takes_minutes_is_tried_only_where_it_is_asked_for(tiny_cnn, tiny_graph, possible):
    for settings in (Settings(), Settings(method="static")):
        assert {"ort-mixed", "qat"}.isdisjoint(possible(tiny_cnn, tiny_graph, settings)[0])
    assert possible(tiny_cnn, tiny_graph, Settings(method="qat"))[0] == ["qat"]
    assert (
        "neither a limit of size nor one of latency"
        in possible(tiny_cnn, tiny_graph, Settings(route="ort-mixed"))[1][0]
    )


def test_where_every_route_fails_the_reason_of_each_is_given(tiny_cnn, tiny_graph, quantized):
    with pytest.raises(BadInput, match=r"^quantize net: no way to quantize works: ort-mixed: it is over"):
        quantized(tiny_cnn, tiny_graph, Quantize(route="ort-mixed"), most_bytes=1)


# --- which of them is kept -------------------------------------------------------------------------------


@pytest.fixture
def attempt(tmp_path):
    """A route that came out with these figures, and its file."""

    def make(name, speed, drop, size=3.0, content=b""):
        route = Route(name=name, chosen=False, reason="", latency_ratio=speed, size_ratio=size, drop=drop)
        (tmp_path / name).write_bytes(content)
        made = Artifact(runtime="onnxruntime", path=tmp_path / name, inputs=("x",), outputs=("y",))
        return Attempt(made, route)

    return make


def kept(attempts, max_drop):
    artifact, routes = choose(attempts, max_drop)
    assert [route.name for route in routes if route.chosen] == [artifact.path.name]
    return artifact.path.name


def test_the_fastest_inside_the_limit_is_kept(attempt):
    rivals = [attempt("fast", 2.0, 0.005), attempt("faster", 3.0, 0.02)]
    assert kept(rivals, 0.01) == "fast"
    assert kept(rivals, None) == "faster"


def test_a_route_that_one_class_loses_too_much_by_is_not_kept(attempt):
    fast, fair = attempt("fast", 2.0, 0.005), attempt("fair", 1.5, 0.005)
    fast = replace(fast, route=replace(fast.route, class_drop=0.2))
    for most, name in ((None, "fast"), (0.2, "fast"), (0.03, "fair")):
        artifact, routes = choose([fast, fair], 0.01, max_class_drop=most)
        assert artifact.path.name == name
    assert routes[0].reason == "loses more quality than the limit allows"


def test_of_two_that_are_equally_fast_the_more_accurate_is_kept(attempt):
    assert kept([attempt("a", 2.0, 0.004), attempt("b", 2.0 * SAME_SPEED + 0.01, 0.001)], 0.01) == "b"


def test_where_none_is_faster_than_float_the_smallest_is_kept(attempt):
    assert kept([attempt("a", 0.9, 0.0, 1.1), attempt("b", 0.7, 0.005, 3.5)], 0.01) == "b"


def test_where_none_is_inside_the_limit_the_one_that_loses_least_is_kept(attempt):
    assert kept([attempt("a", 4.0, 0.5), attempt("b", 1.2, 0.2)], 0.01) == "b"


def test_a_slower_route_is_kept_where_the_fastest_is_too_large(attempt):
    fast = attempt("fast", 3.0, 0.001, content=b"x" * 1000)
    small = attempt("small", 1.2, 0.002, content=b"x" * 50)
    for most, name in ((None, "fast"), (2000, "fast"), (100, "small"), (1, "fast")):
        artifact, routes = choose([fast, small], 0.01, most)
        assert artifact.path.name == name
    routes = choose([fast, small], 0.01, 100)[1]
    assert [route.reason for route in routes] == [
        "larger than the limit allows",
        "fastest inside the quality and size limits",
    ]


def test_a_route_that_is_no_faster_than_float_is_no_rival_of_one_that_is(attempt):
    assert kept([attempt("a", 1.05, 0.004), attempt("b", 1.01, 0.001)], 0.01) == "a"


@given(st.integers(1, 40), st.integers(1, 40))
def test_calls_are_spread_over_all_of_them(given_calls, most):
    calls = [{"x": np.array(index)} for index in range(given_calls)]
    picked = [int(call["x"]) for call in spread(calls, most)]
    assert len(picked) == min(given_calls, most)
    assert picked == sorted(set(picked))
    assert picked[0] == 0
    assert most < 2 or picked[-1] == given_calls - 1
