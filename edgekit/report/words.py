"""The words of a report, said in one place so that the terminal and the page agree."""

from __future__ import annotations

import math
import shlex

from edgekit.cost import LABELS, Cost, Figure, Status, show_value
from edgekit.result import BuildResult, Quality, Tried

UNKNOWN = "unknown"

HOW = {
    "measured": "run and timed, weighed or counted where the source says",
    "predicted": "computed by a model of the device, never run there; the interval holds 9 cases in 10",
    "emulated": "run on an imitation of the device: function and memory are real, time is not",
    "limit": "what must hold, from the target's file or the command line",
}

OUTCOMES: dict[Status, str] = {
    "MET": "every limit was measured and is kept",
    "PREDICTED": "no limit is exceeded, but one or more rests on a prediction, whose interval lies inside it",
    "NOT MET": "a limit is exceeded",
    "UNPROVEN": "nothing decides a limit: neither a measurement nor a prediction that is narrow enough",
}


def clean(value: object) -> str:
    """`value` as printable text: what would move a terminal's cursor or break XML becomes U+FFFD."""
    text = " ".join(str(value).split())
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def is_known(value: float | None) -> bool:
    """Whether there is a number that can be shown."""
    return value is not None and math.isfinite(value)


def value_text(name: str, figure: Figure | None) -> str:
    """The figure of the cost field `name` without its interval: `12.3 ms`."""
    if figure is None or not is_known(figure.value):
        return UNKNOWN
    return show_value(name, figure.value)


def interval_text(name: str, figure: Figure | None) -> str:
    """The interval of a prediction, `8.1 to 17.4 ms`; empty when the figure has none."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    if not (is_known(figure.low) and is_known(figure.high)):
        return ""
    low, high = show_value(name, figure.low), show_value(name, figure.high)
    number, unit = low.rsplit(" ", 1)
    return f"{number} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


def limit_label(name: str, quality: Quality | None) -> str:
    """The label of a cost field; "accuracy" is said only of what the task's own `evaluate` measured."""
    label = LABELS[name][0]
    if name != "drop" or quality is None or quality.kind == "none":
        return label
    return "accuracy drop" if quality.kind == "accuracy" else "fidelity drop"


def quality_name(quality: Quality | None) -> str:
    """What the quality is measured by."""
    kind = quality.kind if quality else "none"
    names = {
        "accuracy": "accuracy",
        "top-1 agreement": "fidelity (top-1 agreement with the original)",
        "signal-to-noise": "fidelity (signal-to-noise, dB)",
        "none": "quality",
    }
    return names.get(kind, f"fidelity ({clean(kind)})")


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
        return "1.00x, the same"
    return f"{ratio:.2f}x {better}" if ratio > 1 else f"{1 / ratio:.2f}x {worse}"


def decibel_text(value_db: float) -> str:
    """A signal-to-noise ratio; infinite when the outputs are equal."""
    if math.isnan(value_db):
        return UNKNOWN
    if math.isinf(value_db):
        return "equal" if value_db > 0 else "no signal"
    return f"{value_db:.1f} dB"


def subject(result: BuildResult) -> Tried | None:
    """The candidate that the report is about: the shipped one, else the nearest one that was tried."""
    if result.shipped is not None:
        return result.tried[result.shipped]
    return min(result.tried, key=_distance, default=None)


def _distance(tried: Tried) -> tuple[bool, int, float]:
    excess = [verdict.excess for verdict in tried.verdicts if math.isfinite(verdict.excess)]
    missed = sum(verdict.status == "NOT MET" for verdict in tried.verdicts)
    return not tried.realised, missed, max(excess, default=0.0)


def latency_field(budget: Cost, tried: tuple[Tried, ...]) -> str:
    """The latency percentile to show where there is room for one: the budget's, else the first known."""
    names = ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms")
    named = [name for name in names if getattr(budget, name) is not None]
    known = [name for name in names if any(getattr(item.cost, name) is not None for item in tried)]
    return (named or known or list(names))[0]


def headline(result: BuildResult) -> str:
    """One sentence that says how the build came out."""
    tried = subject(result)
    if tried is None:
        return "no candidate was tried"
    name = f"`{clean(tried.name)}`"
    if not any(result.budget.known()):
        return f"{name}: no limit was named, so none can be exceeded"
    wanting = _labels(tried, result.outcome)
    sentences: dict[Status, str] = {
        "MET": f"{name} keeps every limit of the budget, and each was measured",
        "PREDICTED": f"{name} fits the budget; {wanting} predicted, not measured",
        "NOT MET": f"nothing that was tried fits the budget; {name} comes nearest: {_misses(tried)}",
        "UNPROVEN": f"{name} may or may not fit the budget: {wanting} not decided",
    }
    return sentences[result.outcome]


def _labels(tried: Tried, status: Status) -> str:
    labels = [limit_label(v.name, tried.quality) for v in tried.verdicts if v.status == status]
    return f"{join(labels)} {'is' if len(labels) == 1 else 'are'}" if labels else "one or more limits are"


def _misses(tried: Tried) -> str:
    missed = [verdict for verdict in tried.verdicts if verdict.status == "NOT MET"]
    parts = []
    for verdict in missed:
        label = limit_label(verdict.name, tried.quality)
        times = f"{verdict.excess:.2f} times the limit" if math.isfinite(verdict.excess) else "above the limit"
        parts.append(f"{label} is {times}")
    return join(parts) or "see the limits"


def join(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def basis(tried: Tried | None, profile: str) -> list[str]:
    """What the reader must know about figures that were not measured on the device."""
    if tried is None:
        return []
    where = clean(profile)
    known = list(tried.cost.known())
    latency = [LABELS[name][0] for name, figure in known if _is(figure, "predicted") and "latency" in name]
    other = [LABELS[name][0] for name, figure in known if _is(figure, "predicted") and "latency" not in name]
    emulated = [LABELS[name][0] for name, figure in known if _is(figure, "emulated")]
    lines = []
    if latency:
        be = "is" if len(latency) == 1 else "are"
        lines.append(f"{join(latency)} {be} predicted by the profile's cost model, not measured on {where}")
    if other:
        be = "is" if len(other) == 1 else "are"
        lines.append(f"{join(other)} {be} predicted, not measured on {where}")
    if emulated:
        be = "comes" if len(emulated) == 1 else "come"
        lines.append(f"{join(emulated)} {be} from an emulated {where}, where time is not real")
    return lines


def _is(figure: Figure, how: str) -> bool:
    return figure.how == how


def here_lines(tried: Tried | None) -> list[str]:
    """What was measured on the machine of the build, where that is not the target."""
    parts = [f"{LABELS[name][0]} {value_text(name, figure)}" for name, figure in tried.here.known()] if tried else []
    return [f"on this machine, which is not the target: {join(parts)}"] if parts else []


def threads_text(threads: int) -> str:
    """`1 thread`, `4 threads`."""
    return f"{threads} thread{'' if threads == 1 else 's'}"


def next_commands(result: BuildResult) -> list[str]:
    """What to type next; empty when there is no bundle."""
    if result.bundle is None:
        return []
    folder = shlex.quote(clean(result.bundle))
    return [f"edgekit bench {folder}", f"cd {folder} && python run.py --check"]


def took(seconds: float) -> str:
    """A duration as people say it."""
    if not math.isfinite(seconds) or seconds < 0:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
