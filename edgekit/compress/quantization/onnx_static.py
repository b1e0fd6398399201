"""Static int8 ONNX graphs: the best of what a quantizer gives, with the layers that must stay in float."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgekit.artifact import Artifact
from edgekit.compress.calls import RANKING_CALLS, Call, spread
from edgekit.compress.context import Context
from edgekit.compress.quantization.int8_nncf import quantize_nncf
from edgekit.compress.quantization.int8_onnxruntime import preprocessed, quantize_static
from edgekit.compress.quantization.limits import excess
from edgekit.compress.quantization.sensitivity import (
    Error,
    Make,
    fewest_in_float,
    layers_of,
    most_in_float,
    rank,
)
from edgekit.compress.quantization.settings import Settings
from edgekit.errors import BadInput
from edgekit.graph.equalise import equalise
from edgekit.graph.fusion import dequantizing_nodes, optimised, unfused_nodes
from edgekit.graph.put_back import put_back, quantized_layers, restore_weights
from edgekit.graph.run import opened
from edgekit.runtimes.onnxruntime import as_artifact


@dataclass(frozen=True)
class Quantized:
    """A Q/DQ graph and the float graph that it was made of; their nodes have the same names."""

    graph: onnx.ModelProto
    original: onnx.ModelProto


Quantize = Callable[[onnx.ModelProto], Quantized]


def by_nncf(calls: Sequence[Call], settings: Settings, context: Context, error: Error) -> Quantize:
    """NNCF's quantizer; a bias correction that makes the outputs worse is left out.

    (It does on residual networks with a convolved shortcut, where nncf 3.4 manages the fast one only.)
    """

    def quantize(model: onnx.ModelProto) -> Quantized:
        asked = [settings]
        if settings.bias_correction != "none":
            asked.append(settings.model_copy(update={"bias_correction": "none"}))
        found = [quantize_nncf(model, calls, one, reduce_range=context.reduce_range) for one in asked]
        return Quantized(min(found, key=lambda graph: error(opened(graph))), model)

    return quantize


def by_onnxruntime(calls: Sequence[Call], settings: Settings, context: Context) -> Quantize:
    """The quantizer that comes with onnxruntime."""

    def quantize(model: onnx.ModelProto) -> Quantized:
        ready = preprocessed(model)
        return Quantized(
            quantize_static(ready, calls, settings, reduce_range=context.reduce_range),
            ready,
        )

    return quantize


def best_of_equalised(
    model: onnx.ModelProto, quantize: Quantize, calls: Sequence[Call], error: Error
) -> Quantized:
    """The graph quantized as it is, or with its channels equalised where that comes closer to float."""
    plain = quantize(model)
    equal, pairs = equalise(model, calls)
    if not pairs:
        return plain
    return min(plain, quantize(equal), key=lambda one: error(opened(one.graph)))


def settled(quantized: Quantized, kept: Collection[str] = ()) -> onnx.ModelProto:
    """The graph with these layers in float, and with no other left in float between Q/DQ pairs.

    What onnxruntime does not fuse although it is quantized on both sides is put back to float as well: it
    would only be dequantized, computed in float and quantized again. What it computes in float because
    nothing quantizes the result gets its float weights.

    Raises:
        BadInput: some stand in float between Q/DQ pairs all the same.
    """
    graph = put_back(quantized.graph, quantized.original, kept)
    known = {node.name for node in quantized.original.graph.node}
    if unfused := unfused_nodes(optimised(graph)):
        graph = put_back(quantized.graph, quantized.original, {*kept, *unfused} & known)
    runs = optimised(graph)
    if lone := known.intersection(dequantizing_nodes(runs)):
        graph = restore_weights(graph, quantized.original, lone)
        runs = optimised(graph)
    if unfused := unfused_nodes(runs):
        raise BadInput(
            f"onnxruntime leaves {len(unfused)} layers in float between Q/DQ, the first `{unfused[0]}`"
        )
    return graph


def revert(quantized: Quantized, error: Error, context: Context) -> tuple[str, ...]:
    """The layers to leave in float, as few as may be, for the quality to be inside the limits.

    Raises:
        BadInput: the limits do not hold with all of them in float either.
    """

    def holds(artifact: Artifact) -> bool:
        return excess(context.measure(artifact.open()), context) <= 0

    with _trials(quantized) as (settle, ranked):
        if holds(settle(frozenset())):
            return ()
        kept = fewest_in_float(ranked(error, context), settle, holds)
    if kept is None:
        raise BadInput("with every layer in float the loss of quality is still over the limit")
    return kept


def fill(
    quantized: Quantized, error: Error, context: Context, fits: Callable[[Artifact], bool]
) -> tuple[str, ...]:
    """The most sensitive layers, as many as can be left in float under a limit of size or time.

    Raises:
        BadInput: with no layer in float it is over the limit already.
    """
    with _trials(quantized) as (settle, ranked):
        kept = most_in_float(ranked(error, context), settle, fits)
    if kept is None:
        raise BadInput("it is over the limit with every layer in int8")
    return kept


@contextmanager
def _trials(quantized: Quantized) -> Iterator[tuple[Make, Callable[[Error, Context], list[str]]]]:
    """What makes the artifact with some layers in float, and what ranks all layers."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder) / "trial.onnx"

        def saved(graph: onnx.ModelProto) -> Artifact:
            onnx.save(graph, path)
            return as_artifact(path)

        def settle(kept: frozenset[str]) -> Artifact:
            return saved(settled(quantized, kept))

        def alone(kept: frozenset[str]) -> Artifact:
            return saved(put_back(quantized.graph, quantized.original, kept))

        def ranked(error: Error, context: Context) -> list[str]:
            return layers_of(rank(quantized_layers(quantized.graph), alone, error, context.detail))

        yield settle, ranked


def ranking_calls(context: Context) -> list[Call]:
    """The few calibration calls on which candidates are held against float."""
    return spread(context.calls, RANKING_CALLS)
