import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import calls_of
from steps import context_of

from edgekit.artifact import Artifact
from edgekit.compress.quantization.int8_onnxruntime import preprocessed, quantize_static
from edgekit.compress.quantization.onnx_static import Quantized, fill, revert, settled
from edgekit.compress.quantization.sensitivity import (
    fewest_in_float,
    layers_of,
    most_in_float,
    output_error,
    rank,
)
from edgekit.compress.quantization.settings import Settings
from edgekit.errors import BadInput
from edgekit.graph.fusion import optimised, unfused_nodes
from edgekit.graph.put_back import put_back, quantized_layers
from edgekit.graph.run import opened
from edgekit.runtimes.onnxruntime import write


@pytest.fixture(scope="module")
def fragile(tiny_cnn, tiny_graph):
    """The digits network in int8, with one layer's weights rounded to almost nothing."""
    ready = preprocessed(tiny_graph)
    quantized = quantize_static(ready, calls_of(tiny_cnn, 32), Settings(), reduce_range=False)
    layer = quantized_layers(quantized)[2]
    node = next(node for node in quantized.graph.node if node.name == layer)
    pair = next(n for n in quantized.graph.node if n.output[0] == node.input[1])
    tensor = next(t for t in quantized.graph.initializer if t.name == pair.input[0])
    array = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array((array // 64 * 64).astype(np.int8), tensor.name))
    return Quantized(quantized, ready), layer


@pytest.fixture
def make(fragile, tmp_path):
    """The artifact with some layers in float."""
    quantized, _ = fragile
    return lambda kept: write(put_back(quantized.graph, quantized.original, kept), tmp_path)


@pytest.fixture
def error(tiny_cnn, tiny_graph):
    return output_error(opened(tiny_graph), calls_of(tiny_cnn, 8))


def test_the_layer_that_was_broken_ranks_first(fragile, make, error):
    quantized, broken = fragile
    layers, said = quantized_layers(quantized.graph), []
    ranked = rank(layers, make, error, said.append)
    assert ranked[0].layer == broken
    assert ranked[0].error > 5 * ranked[1].error > 0
    assert sorted(layers_of(ranked)) == sorted(layers)
    assert said[-1] == f"sensitivity of layer {len(layers)} of {len(layers)}"


def test_the_error_is_that_of_the_output_that_is_worst():
    reference = {"x": [np.ones(4), np.full(2, 100.0)]}
    error = output_error(lambda _: reference["x"], [{"x": np.zeros(1)}])
    assert error(lambda _: reference["x"]) == 0
    assert error(lambda _: [np.ones(4) * 0.9, np.full(2, 100.0)]) == pytest.approx(0.01)
    assert error(lambda _: [np.full(4, np.nan), np.full(2, 100.0)]) == math.inf


def counting(kept):
    """An artifact that is no more than the number of its float layers."""
    return Artifact(runtime="onnxruntime", path=None, inputs=(), outputs=(), options={"kept": len(kept)})


@given(st.integers(0, 40), st.integers(0, 41))
def test_the_fewest_and_the_most_are_found(layers, limit):
    ranked, asked = [str(index) for index in range(layers)], []

    def kept(artifact):
        asked.append(artifact)
        return artifact.options["kept"]

    fewest = fewest_in_float(ranked, counting, lambda artifact: kept(artifact) >= limit)
    assert fewest == (tuple(ranked[:limit]) if limit <= layers else None)
    assert len(asked) <= math.log2(layers + 1) + 2
    most = most_in_float(ranked, counting, lambda artifact: kept(artifact) <= limit)
    assert most == tuple(ranked[: min(limit, layers)])
    assert most_in_float(ranked, counting, lambda _: False) is None


def test_the_layer_that_hurts_is_put_back_until_the_quality_limit_holds(
    fragile, tiny_cnn, tiny_graph, error, tmp_path
):
    quantized, broken = fragile
    context = context_of(tiny_cnn, tiny_graph, tmp_path)
    lost = context.measure(opened(settled(quantized))).drop
    assert lost > 0.02
    context = replace(context, max_drop=lost / 2)
    kept = revert(quantized, error, context)
    assert kept == (broken,)
    graph = settled(quantized, kept)
    assert context.measure(opened(graph)).drop <= lost / 2
    assert not unfused_nodes(optimised(graph))
    assert revert(quantized, error, replace(context, max_drop=1.0)) == ()


def test_a_quality_that_not_even_float_layers_hold_is_refused(fragile, tiny_cnn, tiny_graph, error, tmp_path):
    context = context_of(tiny_cnn, tiny_graph, tmp_path, max_drop=-1.0)
    with pytest.raises(BadInput, match=r"^with every layer in float the loss of quality is still"):
        revert(fragile[0], error, context)


def test_as_many_layers_as_fit_stay_in_float_the_most_sensitive_first(
    fragile, tiny_cnn, tiny_graph, error, tmp_path
):
    quantized, broken = fragile
    context = context_of(tiny_cnn, tiny_graph, tmp_path)
    whole, least = tiny_graph.ByteSize(), settled(quantized).ByteSize()
    limit = (whole + least) / 2
    kept = fill(quantized, error, context, lambda artifact: artifact.size_bytes <= limit)
    assert kept
    assert broken not in kept  # the largest, which does not fit
    assert least < settled(quantized, kept).ByteSize() <= limit
    kept = fill(quantized, error, context, lambda artifact: artifact.size_bytes <= whole * 0.9)
    assert kept[0] == broken
    with pytest.raises(BadInput, match=r"^it is over the limit with every layer in int8$"):
        fill(quantized, error, context, lambda artifact: artifact.size_bytes <= least / 2)
