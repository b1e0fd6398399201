"""How figures, limits and scores are written, in one place so that the terminal and the page agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.cost import LABELS, Cost, Figure, show_value
from edgekit.errors import clean
from edgekit.result import Quality, Tried

UNKNOWN = "unknown"

HOW = {
    "measured": "run and timed, weighed or counted where the source says",
    "predicted": "computed, never run on the device; the interval of a latency holds 9 cases in 10",
    "emulated": "run on an imitation of the device: function and memory are real, time is not",
    "limit": "what must hold, from the target's file or the command line",
}


def runtime_text(name: str) -> str:
    """A runtime as reports call it: TensorRT with what must be known of it wherever it is named."""
    return f"{clean(name)} (not yet run on hardware)" if name == "tensorrt" else clean(name)


def value_text(name: str, figure: Figure | None) -> str:
    """The figure of the cost field `name` without its interval: `12.3 ms`."""
    return show_value(name, figure.value) if figure else UNKNOWN


def interval_text(name: str, figure: Figure | None) -> str:
    """The interval of a prediction, `8.1 to 17.4 ms`; empty when the figure has none."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    if not (math.isfinite(figure.low) and math.isfinite(figure.high)):
        return ""
    low, high = show_value(name, figure.low), show_value(name, figure.high)
    number, unit = low.rsplit(" ", 1)
    return f"{number} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


def show_ms(value: float | None) -> str:
    """Milliseconds: `12.3 ms`."""
    return UNKNOWN if value is None else show_value("latency_p50_ms", value)


def show_mb(value: float | None) -> str:
    """Megabytes: `12.3 MB`."""
    return UNKNOWN if value is None else show_value("peak_memory_mb", value)


def quality_kind(tried: Tried) -> str:
    """What the quality of a candidate is measured by, as `Quality.kind` names it."""
    return tried.quality.kind if tried.quality else "none"


def limit_label(name: str, kind: str) -> str:
    """The label of a cost field, where the quality is of that kind."""
    return f"{quality_word(kind)} drop" if name == "drop" else LABELS[name][0]


def quality_word(kind: str) -> str:
    """What the quality may be called: "accuracy" only where the task's own `evaluate` measured it."""
    return kind if kind == "accuracy" else "quality" if kind == "none" else "fidelity"


def quality_name(quality: Quality | None) -> str:
    """What the quality is measured by."""
    kind = quality.kind if quality else "none"
    word = quality_word(kind)
    how = "top-1 agreement with the original" if kind == "top-1 agreement" else clean(kind)
    return f"{word} ({how})" if word == "fidelity" else word


def score_text(quality: Quality | None) -> str:
    """The score by itself: `98.44 %`, `41.2 dB`, or the bare number of a score that is not a share."""
    score = quality.score if quality else None
    if quality is None or score is None or math.isnan(score):
        return UNKNOWN
    if math.isinf(score):
        return "equal to the original" if score > 0 else UNKNOWN
    if quality.kind == "signal-to-noise":
        return f"{score:.1f} dB"
    return f"{score * 100:.2f} %" if 0 <= score <= 1 else f"{score:.4g}"


def quality_text(quality: Quality | None) -> str:
    """One phrase: what was measured, the score, on how many samples."""
    if quality is None or quality.kind == "none":
        return "quality unknown: the task has neither `evaluate` nor calibration data"
    samples = f" on {quality.samples} samples" if quality.samples is not None else ""
    return f"{quality_name(quality)} {score_text(quality)}{samples}"


def ratio_text(ratio: float | None, better: str, worse: str) -> str:
    """A ratio over the float model in words: `2.10x faster`, `2.50x slower`."""
    if ratio is None or not math.isfinite(ratio) or ratio <= 0:
        return UNKNOWN
    if abs(ratio - 1) < 0.005:
        return "the same"
    return f"{ratio:.2f}x {better}" if ratio > 1 else f"{1 / ratio:.2f}x {worse}"


def beside_float(ratio: float | None, better: str, worse: str) -> str:
    """The same beside the float network: `2.10x faster than float32`; empty when the ratio is unknown."""
    shown = ratio_text(ratio, better, worse)
    return "" if shown == UNKNOWN else f"{shown} {'as' if shown == 'the same' else 'than'} float32"


def decibel_text(value_db: float) -> str:
    """A signal-to-noise ratio; infinite when the outputs are equal."""
    if math.isnan(value_db):
        return UNKNOWN
    if math.isinf(value_db):
        return "equal" if value_db > 0 else "no signal"
    return f"{value_db:.1f} dB"


def latency_field(budget: Cost, costs: Sequence[Cost]) -> str:
    """The latency percentile to show where there is room for one: the budget's, else the first known."""
    names = ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms")
    named = [name for name in names if getattr(budget, name) is not None]
    known = [name for name in names if any(getattr(cost, name) is not None for cost in costs)]
    return (named or known or list(names))[0]


def figures_text(cost: Cost) -> str:
    """The known figures of a cost in a row: `latency p50 1.3 ms and artifact size 0.3 MB`."""
    return listed([f"{LABELS[name][0]} {value_text(name, figure)}" for name, figure in cost.known()])


def listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def took(seconds: float) -> str:
    """A duration as people say it."""
    if not math.isfinite(seconds) or seconds < 0:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
