"""Static int8 TFLite files: which operators are worth it, and which layers must stay in float."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.artifact import Artifact, Converted
from edgekit.compress.calls import RANKING_CALLS, spread
from edgekit.compress.context import Context
from edgekit.compress.quantization.limits import excess, small_and_fast
from edgekit.compress.quantization.sensitivity import (
    Make,
    fewest_in_float,
    layers_of,
    most_in_float,
    output_error,
    rank,
)
from edgekit.compress.quantization.settings import Settings
from edgekit.errors import BadInput
from edgekit.runtimes.tflite import FILE, artifact
from edgekit.runtimes.tflite_aeq import Ranges, Recipe, activation_ranges, quantized, without_integer_kernel
from edgekit.runtimes.tflite_file import HEAVY, around_shared_outputs, kinds, surroundings

BOOKKEEPING = ("QUANTIZE", "DEQUANTIZE", "CAST")


@dataclass(frozen=True, kw_only=True)
class Static:
    """A float artifact that is quantized with the ranges of its activations, several times if need be.

    Attributes:
        float: the artifact.
        kinds: kinds of operators that compute in integers.
        ranges: of the activations.
        bits: of the activations, 8 or 16.
        edges: operators that stay in float because an output of the network is also read inside it.
    """

    float: Artifact
    kinds: tuple[str, ...]
    ranges: Ranges
    bits: int
    edges: frozenset[str]

    def write(self, folder: Path, kept: frozenset[str] = frozenset()) -> Artifact:
        """The quantized artifact with these layers in float, and all between them and the next ones."""
        around = surroundings(self.float.path)
        in_float = self.edges.union(*(around[name] for name in kept))
        recipe = Recipe(method="static", activation_bits=self.bits, kinds=self.kinds, kept=in_float)
        (folder / FILE).write_bytes(quantized(self.float.path, recipe, self.ranges))
        return artifact(folder / FILE, self.float.inputs, self.float.outputs)


def prepare(converted: Converted, settings: Settings, context: Context, *, layers_only: bool) -> Static:
    """The artifact with its ranges, and what of it computes in integers.

    Args:
        converted: left as it was.
        settings: of these the number of calls and the bits of activations.
        context: gives the calibration calls.
        layers_only: convolutions and dense layers alone; else every operator that the runtime has fast
            integer kernels for.
    """
    path = converted.artifact.path
    bits = 16 if settings.activations == "int16" else 8
    ranges = activation_ranges(path, spread(context.calls, settings.samples), bits=bits)
    chosen = [kind for kind in kinds(path) if kind not in BOOKKEEPING]
    if layers_only:
        chosen = [kind for kind in chosen if kind in HEAVY]
    elif bits == 8:
        slow = without_integer_kernel(path, chosen, ranges)
        chosen = [kind for kind in chosen if kind not in slow or kind in HEAVY]
    return Static(
        float=converted.artifact,
        kinds=tuple(chosen),
        ranges=ranges,
        bits=bits,
        edges=frozenset(around_shared_outputs(path)),
    )


def revert(static: Static, context: Context) -> frozenset[str]:
    """The layers to leave in float, as few as may be, for the quality to be inside the limits.

    Raises:
        BadInput: the limits do not hold with all of them in float either.
    """

    def holds(found: Artifact) -> bool:
        return excess(context.measure(found.open()), context) <= 0

    with _trials(static, context) as (make, ranked):
        if holds(make(frozenset())):
            return frozenset()
        kept = fewest_in_float(ranked(), make, holds)
    if kept is None:
        raise BadInput("with every layer in float the loss of quality is still over the limit")
    return frozenset(kept)


def fill(static: Static, context: Context) -> frozenset[str]:
    """The most sensitive layers, as many as can be left in float under the limits of size and latency.

    Raises:
        BadInput: it is over the limit with no layer in float, or there is room for none.
    """
    with _trials(static, context) as (make, ranked):
        kept = most_in_float(ranked(), make, lambda one: small_and_fast(one, static.float, context))
    if kept is None:
        raise BadInput("it is over the limits with every layer in int8")
    if not kept:
        raise BadInput("no layer in float fits under the limits of size and latency")
    return frozenset(kept)


@contextmanager
def _trials(static: Static, context: Context) -> Iterator[tuple[Make, Callable[[], list[str]]]]:
    """What makes the artifact with some layers in float, and what ranks all layers."""
    layers = list(surroundings(static.float.path))
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:

        def make(kept: frozenset[str]) -> Artifact:
            # A file for each: an open session has its own mapped into memory.
            return static.write(Path(tempfile.mkdtemp(dir=folder)), kept)

        def ranked() -> list[str]:
            error = output_error(static.float.open(), spread(context.calls, RANKING_CALLS))
            return layers_of(rank(layers, make, error, context.detail))

        yield make, ranked
