"""What a model uses and what it may use: one type for both, every field may be unknown.

Imports nothing of edgekit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

How = Literal["measured", "emulated", "predicted", "limit"]
Status = Literal["MET", "PREDICTED", "NOT MET", "UNPROVEN"]

OUTCOMES: dict[Status, str] = {
    "MET": "every limit was measured and is kept: latency and memory on the device; size is exact, and "
    "quality is what the kernels of the machine that built it give",
    "PREDICTED": "no limit is exceeded, but one or more rests on a prediction, whose interval lies inside it",
    "NOT MET": "a limit is exceeded; this is the nearest that was found",
    "UNPROVEN": "nothing decides a limit, neither a measurement nor a prediction that is narrow enough: "
    "measure on the device",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number and how it was got.

    `low` and `high` bound a prediction, a latency's 9 times in 10; they are None for the rest. `source` says
    in words where the number comes from: the device and the protocol, the cost model, the file of the limit.
    """

    value: float
    how: How
    source: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A measurement, a prediction or a budget. MB are 10^6 bytes.

    Attributes:
        latency_p50_ms: median latency of one inference, milliseconds.
        latency_p90_ms: 90th percentile of the same.
        latency_p99_ms: 99th percentile of the same.
        peak_memory_mb: peak resident memory of the process that runs the artifact.
        size_mb: bytes of the artifact on disk.
        drop: quality lost against the float original: score points when the task has `evaluate`, else the
            share of disagreement with the original (see `edgekit.task.quality`).
        class_drop: the same for the class that lost most.
    """

    latency_p50_ms: Figure | None = None
    latency_p90_ms: Figure | None = None
    latency_p99_ms: Figure | None = None
    peak_memory_mb: Figure | None = None
    size_mb: Figure | None = None
    drop: Figure | None = None
    class_drop: Figure | None = None

    def known(self) -> Iterator[tuple[str, Figure]]:
        """The fields that are known, in order, as (name, figure)."""
        for field in fields(self):
            figure = getattr(self, field.name)
            if figure is not None:
                yield field.name, figure

    def __or__(self, other: Cost) -> Cost:
        """Join partial costs: the fields that `other` knows replace this one's."""
        return Cost(**{**dict(self.known()), **dict(other.known())})

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The known fields as plain JSON data; `cost_from_dict` reads it back."""
        return {
            name: {key: value for key, value in asdict(figure).items() if value is not None}
            for name, figure in self.known()
        }


def cost_from_dict(data: Mapping[str, Mapping[str, Any]]) -> Cost:
    """The cost that `Cost.as_dict` wrote.

    Raises:
        TypeError: an unknown field or figure key.
    """
    return Cost(**{name: Figure(**figure) for name, figure in data.items()})


LABELS = {
    "latency_p50_ms": ("latency p50", "ms"),
    "latency_p90_ms": ("latency p90", "ms"),
    "latency_p99_ms": ("latency p99", "ms"),
    "peak_memory_mb": ("peak memory", "MB"),
    "size_mb": ("artifact size", "MB"),
    "drop": ("quality drop", ""),
    "class_drop": ("worst-class drop", ""),
}


SMALLER = {"ms": "µs", "MB": "KB"}


def show_value(name: str, value: float) -> str:
    """A value of the field `name` as people write it: `12.3 ms`, `31 KB`, `0.50 %`."""
    unit = LABELS[name][1]
    if not math.isfinite(value):
        return "infinite" if value > 0 else "unknown"
    if not unit:
        return f"{value * 100:.2f} %"
    if 0 < value < 0.1:
        value, unit = value * 1000, SMALLER[unit]
    return f"{value:.0f} {unit}" if 100 <= value < 1e6 else f"{value:.3g} {unit}"


def show_figure(name: str, figure: Figure) -> str:
    """A figure with its interval, when it has one."""
    text = show_value(name, figure.value)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({show_value(name, figure.low)} to {show_value(name, figure.high)})"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How one limit stands against one figure.

    `excess` is the factor by which the figure misses the limit, 0 when it does not; where the limit lies
    inside an interval, the factor by which its high end does.
    """

    name: str
    limit: Figure
    figure: Figure | None
    status: Status
    excess: float
    reason: str


def judge(cost: Cost, budget: Cost) -> list[Verdict]:
    """One verdict for each limit that the budget names, in the order of the fields."""
    return [_judge_one(name, limit, getattr(cost, name)) for name, limit in budget.known()]


def _judge_one(name: str, limit: Figure, figure: Figure | None) -> Verdict:
    def verdict(status: Status, reason: str, excess: float = 0.0) -> Verdict:
        return Verdict(name=name, limit=limit, figure=figure, status=status, excess=excess, reason=reason)

    label, most = LABELS[name][0], show_value(name, limit.value)
    if figure is None or math.isnan(figure.value):
        return verdict("UNPROVEN", f"nothing was measured or predicted for {label}, limit {most}")
    if figure.how == "emulated" and name.startswith("latency"):
        return verdict("UNPROVEN", f"{label}: time under emulation says nothing about the device")
    least = figure.low if figure.low is not None else figure.value
    worst = figure.high if figure.high is not None else figure.value
    shown = show_figure(name, figure)
    if worst <= limit.value:
        status: Status = "PREDICTED" if figure.how == "predicted" else "MET"
        return verdict(status, f"{label} {shown} {figure.how}, limit {most}")
    excess = _ratio(figure.value, limit.value)
    if least > limit.value:
        return verdict("NOT MET", f"{label} {shown} {figure.how}, limit {most}", excess)
    return verdict(
        "UNPROVEN",
        f"{label} {shown} {figure.how}: the limit {most} lies inside the interval, measure on the device",
        _ratio(worst, limit.value),
    )


def _ratio(value: float, limit: float) -> float:
    return value / limit if limit > 0 else float("inf")


def over(cost: Cost, budget: Cost) -> list[Verdict]:
    """The limits that the cost surely exceeds."""
    return [verdict for verdict in judge(cost, budget) if verdict.status == "NOT MET"]


def unproven(cost: Cost, budget: Cost) -> list[Verdict]:
    """The limits that nothing decides: not measured, or inside the interval of a prediction."""
    return [verdict for verdict in judge(cost, budget) if verdict.status == "UNPROVEN"]


def outcome(verdicts: list[Verdict]) -> Status:
    """The outcome of a build: the worst of its verdicts; MET when no limit is named."""
    order: tuple[Status, ...] = ("NOT MET", "UNPROVEN", "PREDICTED", "MET")
    return next(status for status in order if status == "MET" or any(v.status == status for v in verdicts))
