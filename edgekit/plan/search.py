"""The planner: try recipes, mildest first, and stop at the first that fits the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgekit.cost import Cost, Status, Verdict, judge, outcome, show_value
from edgekit.errors import BadInput, VerificationFailed
from edgekit.plan.candidates import Candidate
from edgekit.result import Tried

FITS: tuple[Status, ...] = ("MET", "PREDICTED")
HOW_TO_KNOW = {
    "drop": "give `evaluate` or calibration data",
    "class_drop": "let `evaluate` give a score for each class",
}
SPACE = ("size_mb", "peak_memory_mb")
LEAST_SAVING = 0.02  # what a file or a process is smaller by before it is worth a slower network


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search came to.

    Attributes:
        tried: every candidate, in order, built or not, each with its reason.
        shipped: index of the one to ship: the first that fits, else the nearest; None when none was built.
    """

    tried: tuple[Tried, ...]
    shipped: int | None


def search(
    candidates: Sequence[Candidate],
    budget: Cost,
    *,
    foresee: Callable[[Candidate], Cost],
    realise: Callable[[Candidate], Tried],
    on_device: bool = False,
) -> Found:
    """The mildest candidate that fits the budget.

    Args:
        candidates: mildest first; the first one is always built.
        budget: the limits.
        foresee: predicts a candidate's cost without building it.
        realise: builds a candidate, and measures or predicts its cost and quality; raises BadInput where a
            step cannot treat the network, VerificationFailed where its artifact computes something else.
        on_device: the latency is measured on the device itself: no candidate is given up on a prediction.

    Raises:
        EdgekitError: the first candidate cannot be built.
    """
    tried: list[Tried] = []
    shipped: int | None = None
    for candidate in candidates:
        foreseen = foresee(candidate)
        if shipped is not None:
            tried.append(skip(candidate, foreseen, budget, "not needed: a milder recipe fits"))
            continue
        if not tried:
            tried.append(judged(realise(candidate), tried, budget))
        elif not on_device and (hopeless := _hopeless(foreseen, budget)):
            tried.append(skip(candidate, foreseen, budget, hopeless))
        else:
            tried.append(judged(realise_or_say_why(candidate, foreseen, budget, realise), tried, budget))
        if _fits(tried[-1]):
            shipped = len(tried) - 1
    if shipped is not None:
        return Found(tried=tuple(tried), shipped=shipped)
    _build_the_fastest_if_all_were_skipped(candidates, tried, budget, realise)
    return Found(tried=tuple(tried), shipped=_nearest(tried))


def _hopeless(foreseen: Cost, budget: Cost) -> str:
    """Why a candidate need not be built: even the lower end of its prediction misses a limit."""
    missed = [verdict for verdict in judge(foreseen, budget) if verdict.status == "NOT MET"]
    return f"not built: {missed[0].reason}" if missed else ""


def skip(candidate: Candidate, foreseen: Cost, budget: Cost, reason: str) -> Tried:
    """A candidate that was not built."""
    return Tried(
        name=candidate.name,
        recipe=candidate.recipe.data(),
        cost=foreseen,
        verdicts=tuple(judge(foreseen, budget)),
        realised=False,
        reason=reason,
    )


def realise_or_say_why(
    candidate: Candidate, foreseen: Cost, budget: Cost, realise: Callable[[Candidate], Tried]
) -> Tried:
    """The candidate built, or skipped with the reason why a step cannot treat this network."""
    try:
        return realise(candidate)
    except (BadInput, VerificationFailed) as error:
        return skip(candidate, foreseen, budget, f"cannot be built: {error}")


def judged(candidate: Tried, earlier: Sequence[Tried], budget: Cost) -> Tried:
    """The candidate with its verdicts, and the reason why it is shipped or not."""
    if not candidate.realised:
        return candidate
    verdicts = tuple(judge(candidate.cost, budget))
    status = outcome(list(verdicts))
    candidate = replace(candidate, verdicts=verdicts, outcome=status)
    if useless := _gains_nothing(candidate, earlier):
        return replace(candidate, reason=useless, outcome="NOT MET")
    if status in FITS:
        return replace(candidate, reason="the mildest recipe inside the budget")
    missed = next(verdict for verdict in verdicts if verdict.status == status)
    return replace(candidate, reason=missed.reason)


def _gains_nothing(candidate: Tried, earlier: Sequence[Tried]) -> str:
    """Why a candidate that is slower than float is not shipped; empty where a smaller one is needed."""
    ratio = candidate.speedup_here
    if ratio is None or ratio >= 1 or not earlier:
        return ""
    needed = [v.name for v in earlier[0].verdicts if v.status not in FITS and v.name in SPACE]
    if any(_is_smaller(candidate.cost, earlier[0].cost, name) for name in needed):
        return ""
    if needed and ratio > 1 - LEAST_SAVING:
        return "not chosen: neither smaller nor faster than the float network"
    return (
        f"not chosen: {1 / ratio:.2f} times slower than the float network, measured in turns on this machine"
    )


def _is_smaller(cost: Cost, before: Cost, name: str) -> bool:
    now, was = getattr(cost, name), getattr(before, name)
    return bool(now and was and now.value <= was.value * (1 - LEAST_SAVING))


def _fits(candidate: Tried) -> bool:
    return candidate.realised and candidate.outcome in FITS


def _build_the_fastest_if_all_were_skipped(
    candidates: Sequence[Candidate],
    tried: list[Tried],
    budget: Cost,
    realise: Callable[[Candidate], Tried],
) -> None:
    """When every compressed candidate was given up unseen, build the one predicted fastest."""
    if any(item.realised for item in tried[1:]):
        return
    skipped = [i for i, item in enumerate(tried) if not item.realised and item.reason.startswith("not built")]
    if not skipped:
        return
    index = min(skipped, key=lambda i: _latency(tried[i]))
    built = realise_or_say_why(candidates[index], tried[index].cost, budget, realise)
    tried[index] = judged(built, tried[:1], budget)


def _latency(item: Tried) -> float:
    figure = item.cost.latency_p50_ms
    return figure.value if figure else float("inf")


def _nearest(tried: Sequence[Tried]) -> int | None:
    """The built candidate that misses by least: the smallest worst excess first, then the fewest misses.

    One that gains nothing comes last.
    """
    built = [index for index, item in enumerate(tried) if item.realised]

    def distance(index: int) -> tuple[bool, float, int]:
        verdicts = tried[index].verdicts
        misses = sum(verdict.status == "NOT MET" for verdict in verdicts)
        useless = bool(index and _gains_nothing(tried[index], tried[:1]))
        return useless, max((verdict.excess for verdict in verdicts), default=0.0), misses

    return min(built, key=distance, default=None)


def what_to_relax(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """For each limit that the nearest recipe misses, the value at which it would be met."""
    lines = []
    for verdict in verdicts:
        figure = verdict.figure
        if verdict.status in FITS:
            continue
        if figure is None:
            lines.append(f"{verdict.reason}; {HOW_TO_KNOW.get(verdict.name, 'measure it on the device')}")
            continue
        needed = figure.high if figure.high is not None else figure.value
        line = f"{verdict.reason}; met at a limit of {show_value(verdict.name, needed)}"
        may_be_less = figure.how == "predicted" and verdict.status == "NOT MET"
        lines.append(f"{line}, or measure it on the device" if may_be_less else line)
    return tuple(lines)
