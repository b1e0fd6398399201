"""What a build found out: plain records that the report shows and `--json` prints.

Everything in here can be written as JSON by `as_json`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cost import Cost, Status, Verdict

if TYPE_CHECKING:
    from edgekit.graph.layers import Layer


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good a model is on the task.

    Attributes:
        kind: "accuracy" (the task's own `evaluate`), "top-1 agreement" or "signal-to-noise" (fidelity to the
            original on the calibration data), or "none" (no data to tell by).
        score: the figure itself, higher is better; dB for "signal-to-noise".
        drop: what was lost against the float original, 0 for the original itself; None for kind "none".
        class_drop: the same for the class that lost most, where `evaluate` gives scores per class.
        worst_class: the name of that class.
        samples: on how many samples; None when `evaluate` does not say.
    """

    kind: str
    score: float | None
    drop: float | None
    class_drop: float | None = None
    worst_class: str | None = None
    samples: int | None = None


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How close a stage's outputs are to those of the stage before, on real inputs.

    Attributes:
        stage: what was compared: "torch -> onnx", "float32 -> int8".
        snr_db: signal-to-noise ratio of the output that has the lowest, dB; infinite when they are equal.
        max_abs: largest absolute difference.
        top1: share of samples with the same arg-max, for two-dimensional outputs.
        floor_db: the ratio that had to be reached.
    """

    stage: str
    snr_db: float
    max_abs: float
    top1: float | None
    floor_db: float


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way of doing a step, as it came out on this network.

    Attributes:
        name: "ort-static", "nncf", "ort-dynamic".
        chosen: whether this is the one that was kept.
        reason: why, or why not, in words.
        latency_ratio: float time over this one's time in one alternating run on this machine, 1 thread.
        size_ratio: float bytes over this one's bytes.
        drop: quality lost against the float original.
        class_drop: the same for the class that lost most, where `evaluate` gives scores per class.
        left_in_float: convolutions and matrix products that the runtime still computes in float.
    """

    name: str
    chosen: bool
    reason: str
    latency_ratio: float | None = None
    size_ratio: float | None = None
    drop: float | None = None
    class_drop: float | None = None
    left_in_float: int | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a step did to one layer, or why it left it alone.

    Attributes:
        layer: its name in the network.
        what: in words: "svd, rank 32 of 256", "48 of 64 channels".
        params, macs: of the layer before and after; the macs are those of one example call.
        error: of the layer's outputs on real inputs, relative; None where it was not looked at.
    """

    layer: str
    what: str
    params: tuple[int, int]
    macs: tuple[int, int]
    error: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a network step did.

    Attributes:
        step: "factorize", "prune", ...
        params, macs: of the whole network before and after.
        changes: layer by layer, those that it changed.
        notes: what it left alone and why, one sentence each.
        seconds: that it took.
    """

    step: str
    params: tuple[int, int]
    macs: tuple[int, int]
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One candidate: what it is, what it costs on the target, and how it stands against the budget.

    Attributes:
        name: "float32", "int8", "prune 50 % + int8".
        recipe: the recipe as plain data; `--recipe` replays it.
        cost: on the target.
        here: what was measured on this machine, where this machine is not the target.
        speedup_here: time of the float network over this one's, in one alternating run on this machine with 1
            thread; None for the float network itself.
        realised: False when only predicted, never built.
        reason: one sentence: why it was shipped, or why not.
        notes: what its conversion for the runtime had to do.
        steps: what its network steps did, layer by layer.
    """

    name: str
    recipe: dict[str, Any]
    cost: Cost
    here: Cost = field(default_factory=Cost)
    speedup_here: float | None = None
    quality: Quality | None = None
    verdicts: tuple[Verdict, ...] = ()
    outcome: Status | None = None
    parities: tuple[Parity, ...] = ()
    routes: tuple[Route, ...] = ()
    realised: bool = True
    reason: str = ""
    notes: tuple[str, ...] = ()
    steps: tuple[StepReport, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rival:
    """One of the target's runtimes, as the float network came out in it.

    Attributes:
        threads: the best of the numbers that were compared; None where it did not come so far.
        chosen: whether the candidates are built for it.
        reason: why, or why not, in words.
        cost: of the float network on the target; `here`: what was measured on this machine, where that is
            not the target.
        parity: of its artifact with the float graph; None for onnxruntime, whose artifact is that graph.
        ratio: its time over the chosen one's: measured in turns where this machine is the target, else of the
            predictions; None where there is neither.
    """

    runtime: str
    chosen: bool
    reason: str
    threads: int | None = None
    cost: Cost = field(default_factory=Cost)
    here: Cost = field(default_factory=Cost)
    parity: Parity | None = None
    ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a build would try.

    Attributes:
        candidates: with their predicted costs; none of them was built.
        layers: of the float network, each with its predicted time, milliseconds; none where nothing
            foretells it.
        runtimes: the float network in each of the target's runtimes, in the order of the target.
        notes: what the conversion had to do, and which kinds of steps are not offered, and why.
    """

    task: str
    target: str
    profile: str
    runtime: str
    threads: int
    budget: Cost
    candidates: tuple[Tried, ...]
    layers: tuple[tuple[Layer, float], ...]
    runtimes: tuple[Rival, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """One build, from the task to the bundle.

    Attributes:
        shipped: index into `tried` of the candidate in the bundle: the first that fits, else the nearest.
        outcome: of the shipped candidate.
        runtimes: the float network in each of the target's runtimes, in the order of the target.
        relax: what would have to give for the budget to be met, one sentence a limit.
        notes: what the conversion had to do, and which kinds of steps are not offered, and why.
        reused: the stages whose results came from the cache.
        versions: of the libraries that made the artifact.
        machine: where the build ran, in words.
    """

    task: str
    target: str
    profile: str
    runtime: str
    threads: int
    budget: Cost
    tried: tuple[Tried, ...]
    shipped: int
    outcome: Status
    bundle: Path
    runtimes: tuple[Rival, ...] = ()
    relax: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    seconds: float = 0.0


def as_json(value: Any) -> Any:
    """`value` as plain JSON data: records become objects, paths text, infinite and missing numbers null."""
    if isinstance(value, Cost):
        return as_json(value.as_dict())
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
