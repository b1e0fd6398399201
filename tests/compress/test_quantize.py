from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Encoder, Recurrent, TinyCnn, accuracy, calls_of, noise
from steps import built, context_of
from torch import nn

from edgekit.compress.int8_routes import ROUTES, routes_for
from edgekit.compress.quantize import SAME_SPEED, Attempt, Quantize, choose, spread
from edgekit.errors import BadInput
from edgekit.graph.fusion import count_float_nodes, count_integer_nodes, optimised
from edgekit.graph.prepare import is_quantized
from edgekit.result import Route
from edgekit.verify import OPTIMISER_FLOOR_DB, check_graph


def test_the_best_route_is_kept_and_all_are_told(tiny_cnn, tiny_graph):
    before = tiny_graph.SerializeToString()
    context = context_of(tiny_cnn, tiny_graph)
    small = Quantize().apply(tiny_graph, tiny_cnn, context)
    assert {route.name for route in context.routes} == set(ROUTES)
    (chosen,) = [route for route in context.routes if route.chosen]
    assert chosen.drop <= 0.05
    assert chosen.size_ratio > 2.5
    assert all(route.reason for route in context.routes)
    assert count_integer_nodes(optimised(small)) >= 4
    assert accuracy(small) >= accuracy(tiny_graph) - 0.01
    assert tiny_graph.SerializeToString() == before


@pytest.mark.parametrize("name", ["nncf", "ort-static"])
def test_a_static_route_leaves_no_convolution_in_float_and_no_accuracy_behind(name, tiny_cnn, tiny_graph):
    quantized = ROUTES[name](tiny_graph, calls_of(tiny_cnn, 64), reduce_range=False)
    assert count_float_nodes(optimised(quantized)) <= 1
    assert accuracy(quantized) >= accuracy(tiny_graph) - 0.02
    check_graph("off -> on", quantized, quantized, calls_of(tiny_cnn, 4), OPTIMISER_FLOOR_DB)


def test_a_convolution_that_the_dynamic_route_passes_over_counts_as_left_in_float(tiny_cnn, tiny_graph):
    quantized = ROUTES["ort-dynamic"](tiny_graph, calls_of(tiny_cnn, 4), reduce_range=False)
    convolutions = sum(node.op_type == "Conv" for node in quantized.graph.node)
    assert count_float_nodes(optimised(quantized)) >= convolutions > 0


@pytest.mark.parametrize("name", ["nncf", "ort-static"])
def test_a_shortcut_with_a_convolution_is_quantized(name):
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(1 if not i else 8, 8, 3, 1, 1) for i in range(3))
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            y = self.layers[0](x).relu()
            return self.head((self.layers[1](y).relu() + self.layers[2](y)).relu().mean((2, 3)))

    task, model = built(Shortcut(), [noise(1, 1, 8, 8)])
    quantized = ROUTES[name](model, calls_of(task), reduce_range=False)
    assert count_integer_nodes(optimised(quantized)) >= 3
    check_graph("float32 -> int8", model, quantized, calls_of(task), 15)


@pytest.mark.parametrize("name", ROUTES)
def test_token_numbers_are_quantized_around(name):
    _, model = built(Encoder(), [np.arange(12)[None]])
    calls = [{"x": np.random.default_rng(seed).integers(0, 100, (1, 12))} for seed in range(8)]
    quantized = ROUTES[name](model, calls, reduce_range=False)
    assert count_integer_nodes(optimised(quantized)) > 0
    check_graph("float32 -> int8", model, quantized, calls, 15)


def test_an_lstm_is_quantized_dynamically_and_becomes_smaller():
    _, model = built(Recurrent(nn.LSTM), [noise(1, 20, 16)], dynamic={"x": {1: "time"}})
    quantized = ROUTES["ort-dynamic"](model, [], reduce_range=False)
    assert count_integer_nodes(optimised(quantized)) > 0
    assert model.ByteSize() / quantized.ByteSize() > 2
    check_graph("float32 -> int8", model, quantized, [{"x": noise(1, 9, 16)}], 20)


def test_a_file_that_is_quantized_already_is_left_alone(tiny_cnn, tiny_graph):
    for name, route in ROUTES.items():
        calls = calls_of(tiny_cnn, 8)
        quantized = route(tiny_graph, calls, reduce_range=False)
        assert is_quantized(quantized), name
        with pytest.raises(BadInput, match=r"^the model of net: it is quantized already and is left alone$"):
            Quantize().apply(quantized, tiny_cnn, context_of(tiny_cnn, tiny_graph))


def test_a_static_route_without_calibration_says_what_to_give(tiny_cnn, tiny_graph):
    bare = replace(tiny_cnn, calibration=None)
    with pytest.raises(BadInput, match=r"route nncf needs calibration data; give --calibration"):
        Quantize(route="nncf").apply(tiny_graph, bare, context_of(bare, tiny_graph))


def test_weights_out_of_reach_are_given_as_the_reason():
    text = (
        '<ir_version: 9, opset_import: ["": 17]> g (float[1,4] x, bool more) => (float[1,4] y) '
        "{ y = If (more) <then_branch = a () => (float[1,4] p) { p = MatMul(x, w) }, "
        "else_branch = b () => (float[1,4] q) { q = MatMul(x, w) }> }"
    )
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(noise(4, 4), "w"))
    assert routes_for(model, calibrated=True) == (
        [],
        "the weights lie inside If or Loop bodies, where no quantizer reaches them",
    )


def test_a_network_without_a_heavy_layer_has_no_route():
    _, model = built(nn.ReLU(), [noise(1, 4)])
    assert routes_for(model, calibrated=True) == ([], "no convolution or matrix product to quantize")


def test_only_the_dynamic_route_needs_no_calibration(tiny_graph):
    assert routes_for(tiny_graph, calibrated=False) == (
        ["ort-dynamic"],
        "static routes need calibration data",
    )


def test_a_route_that_fails_is_told_and_the_others_go_on(tiny_cnn, tiny_graph, monkeypatch):
    def broken(_model, _calls, *, reduce_range):
        raise RuntimeError("no luck")

    monkeypatch.setitem(ROUTES, "nncf", broken)
    context = context_of(tiny_cnn, tiny_graph)
    Quantize().apply(tiny_graph, tiny_cnn, context)
    assert [route.reason for route in context.routes if route.name == "nncf"] == ["fails: no luck"]


def attempt(name, speed, drop, size=3.0):
    route = Route(name=name, chosen=False, reason="", latency_ratio=speed, size_ratio=size, drop=drop)
    return Attempt(onnx.ModelProto(producer_name=name), route)


def kept(attempts, max_drop):
    model, routes = choose(attempts, max_drop)
    assert [route.name for route in routes if route.chosen] == [model.producer_name]
    return model.producer_name


def test_the_fastest_inside_the_limit_is_kept():
    assert kept([attempt("fast", 2.0, 0.005), attempt("faster", 3.0, 0.02)], 0.01) == "fast"
    assert kept([attempt("fast", 2.0, 0.005), attempt("faster", 3.0, 0.02)], None) == "faster"


def test_a_route_that_one_class_loses_too_much_by_is_not_kept():
    fast, fair = attempt("fast", 2.0, 0.005), attempt("fair", 1.5, 0.005)
    fast = replace(fast, route=replace(fast.route, class_drop=0.2))
    for most, name in ((None, "fast"), (0.2, "fast"), (0.03, "fair")):
        model, routes = choose([fast, fair], 0.01, max_class_drop=most)
        assert model.producer_name == name
    assert routes[0].reason == "loses more quality than the limit allows"


def test_of_two_that_are_equally_fast_the_more_accurate_is_kept():
    assert kept([attempt("a", 2.0, 0.004), attempt("b", 2.0 * SAME_SPEED + 0.01, 0.001)], 0.01) == "b"


def test_where_none_is_faster_than_float_the_smallest_is_kept():
    assert kept([attempt("a", 0.9, 0.0, 1.1), attempt("b", 0.7, 0.005, 3.5)], 0.01) == "b"


def test_where_none_is_inside_the_limit_the_one_that_loses_least_is_kept():
    assert kept([attempt("a", 4.0, 0.5), attempt("b", 1.2, 0.2)], 0.01) == "b"


def test_a_slower_route_is_kept_where_the_fastest_is_too_large():
    fast, small = attempt("fast", 3.0, 0.001), attempt("small", 1.2, 0.002)
    fast.model.doc_string = "x" * 1000
    for most, name in ((None, "fast"), (2000, "fast"), (100, "small"), (1, "fast")):
        model, routes = choose([fast, small], 0.01, most)
        assert model.producer_name == name
    routes = choose([fast, small], 0.01, 100)[1]
    assert [route.reason for route in routes] == [
        "larger than the limit allows",
        "fastest inside the quality and size limits",
    ]


@given(st.integers(1, 40), st.integers(1, 40))
def test_calls_are_spread_over_all_of_them(given_calls, most):
    calls = [{"x": np.array(index)} for index in range(given_calls)]
    picked = [int(call["x"]) for call in spread(calls, most)]
    assert len(picked) == min(given_calls, most)
    assert picked == sorted(set(picked))
    assert picked[0] == 0
    assert most < 2 or picked[-1] == given_calls - 1


def test_the_width_of_a_network_does_not_matter_to_the_routes():
    assert set(routes_for(built(TinyCnn(8), [noise(1, 1, 16, 16)])[1], calibrated=True)[0]) == set(ROUTES)


def test_a_route_that_is_no_faster_than_float_is_no_rival_of_one_that_is():
    assert kept([attempt("a", 1.05, 0.004), attempt("b", 1.01, 0.001)], 0.01) == "a"
