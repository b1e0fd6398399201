"""Which layers quantization hurts: rank them, then leave in float as few as must be or as many as may be.

Neutral to the runtime: a layer is a name, and a function makes the artifact that has some of them in float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit.artifact import Arrays, Artifact, Run
from edgekit.progress import Detail
from edgekit.signal import snr_db

Make = Callable[[frozenset[str]], Artifact]
Error = Callable[[Run], float]


@dataclass(frozen=True)
class Sensitivity:
    """A layer, and the error in the network's outputs when it alone is quantized."""

    layer: str
    error: float


def output_error(reference: Run, calls: Sequence[Arrays]) -> Error:
    """A function that tells how far a run is from the reference: noise over signal, of the worst output.

    Args:
        reference: the float network.
        calls: inputs by name; the reference runs on them once.
    """
    expected = [reference(call) for call in calls]

    def error(run: Run) -> float:
        got = [run(call) for call in calls]
        pairs = zip(zip(*expected, strict=True), zip(*got, strict=True), strict=True)
        return float(max(10 ** (-snr_db(before, after) / 10) for before, after in pairs))

    return error


def rank(
    layers: Sequence[str], make: Make, error: Error, detail: Detail = lambda _text: None
) -> list[Sensitivity]:
    """The layers by what quantizing each alone costs, the worst first.

    One layer at a time shows what it adds by itself; with the others quantized too its share would drown in
    theirs. So many artifacts are made and run as there are layers.

    Args:
        layers: names of all that can be quantized.
        make: the artifact with these layers in float and all others quantized.
        error: how far a run is from float; see `output_error`.
        detail: shows how far it is.
    """
    found = []
    for index, layer in enumerate(layers):
        detail(f"sensitivity of layer {index + 1} of {len(layers)}")
        alone = make(frozenset(layers) - {layer})
        found.append(Sensitivity(layer, error(alone.open())))
    return sorted(found, key=lambda each: -each.error)


def fewest_in_float(
    ranked: Sequence[str], make: Make, holds: Callable[[Artifact], bool]
) -> tuple[str, ...] | None:
    """The fewest layers to leave in float for a limit of quality to hold; None when all are not enough.

    Layers are put back in the order of their rank. The quality is taken to grow with them, so their number
    is found by halving: nine artifacts for 200 layers.

    Args:
        ranked: layers, the most sensitive first.
        make: the artifact with these layers in float.
        holds: whether an artifact's quality is inside the limit.
    """
    if holds(make(frozenset())):
        return ()
    low, high, found = 1, len(ranked), None
    while low <= high:
        count = (low + high) // 2
        if holds(make(frozenset(ranked[:count]))):
            found, high = tuple(ranked[:count]), count - 1
        else:
            low = count + 1
    return found


def most_in_float(
    ranked: Sequence[str], make: Make, fits: Callable[[Artifact], bool]
) -> tuple[str, ...] | None:
    """The layers that can be left in float under a limit of size or time; None when not even none can.

    From the most sensitive on, each stays in float if it fits beside those before it: one artifact a layer.

    Args:
        ranked: layers, the most sensitive first.
        make: the artifact with these layers in float.
        fits: whether an artifact is small, or fast, enough.
    """
    if not fits(make(frozenset())):
        return None
    kept: list[str] = []
    for layer in ranked:
        if fits(make(frozenset([*kept, layer]))):
            kept.append(layer)
    return tuple(kept)


def layers_of(ranked: Sequence[Sensitivity]) -> list[str]:
    """The names in the order of the ranking."""
    return [each.layer for each in ranked]
