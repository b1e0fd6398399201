"""The planner: try recipes, mildest first, and stop at the first that fits the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgekit.cost import LABELS, Cost, Status, Verdict, judge, outcome, show_value
from edgekit.errors import BadInput, VerificationFailed
from edgekit.plan.candidates import Candidate
from edgekit.result import Tried

FITS: tuple[Status, ...] = ("MET", "PREDICTED")
HOW_TO_KNOW = {
    "drop": "give `evaluate` or calibration data",
    "class_drop": "let `evaluate` give a score for each class",
}
SPACE = ("size_mb", "peak_memory_mb")
QUALITY = ("drop", "class_drop")
LEAST_SAVING = 0.02  # what a file or a process is smaller by before it is worth a slower network


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search came to.

    Attributes:
        tried: every candidate, in order, built or not, each with its reason.
        shipped: index of the one to ship: the first that fits, else the nearest that was built.
    """

    tried: tuple[Tried, ...]
    shipped: int


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
    tried = [judged(realise(candidates[0]), (), budget)]
    given_up = []
    for index, candidate in enumerate(candidates[1:], start=1):
        foreseen = foresee(candidate)
        if any(map(_fits, tried)):
            tried.append(skip(candidate, foreseen, budget, "not needed: a milder recipe fits"))
        elif candidate.mends and not _missed(tried, candidate.mends):
            reason = f"not needed: no milder recipe misses the limit of {LABELS[candidate.mends][0]}"
            tried.append(skip(candidate, foreseen, budget, reason))
        elif not on_device and (hopeless := _hopeless(foreseen, budget)):
            tried.append(skip(candidate, foreseen, budget, hopeless))
            given_up.append(index)
        else:
            tried.append(judged(realise_or_say_why(candidate, foreseen, budget, realise), tried, budget))
    if given_up and not any(item.realised for item in tried[1:]):
        # Every compressed candidate was given up unseen: build the one predicted fastest.
        index = min(given_up, key=lambda index: _latency(tried[index]))
        built = realise_or_say_why(candidates[index], tried[index].cost, budget, realise)
        tried[index] = judged(built, tried[:1], budget)
    fitting = (index for index, item in enumerate(tried) if _fits(item))
    return Found(tried=tuple(tried), shipped=next(fitting, _nearest(tried)))


def _missed(tried: Sequence[Tried], limit: str) -> bool:
    """Whether a candidate that was built misses this limit; that of the quality for one class of it too."""
    names = QUALITY if limit in QUALITY else (limit,)
    verdicts = (verdict for item in tried if item.realised for verdict in item.verdicts)
    return any(verdict.name in names and verdict.status == "NOT MET" for verdict in verdicts)


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


def _latency(item: Tried) -> float:
    figure = item.cost.latency_p50_ms
    return figure.value if figure else float("inf")


def _nearest(tried: Sequence[Tried]) -> int:
    """The built candidate that misses by least.

    One that may fit comes before one that surely misses a limit; then the smallest worst excess counts, then
    the fewest misses. One that gains nothing comes last.
    """

    def distance(index: int) -> tuple[bool, bool, float, int]:
        verdicts = tried[index].verdicts
        misses = sum(verdict.status == "NOT MET" for verdict in verdicts)
        useless = bool(index and _gains_nothing(tried[index], tried[:1]))
        return useless, misses > 0, max((verdict.excess for verdict in verdicts), default=0.0), misses

    return min((index for index, item in enumerate(tried) if item.realised), key=distance)


def what_to_relax(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """For each limit that the nearest recipe misses, the value at which it is met; the sure misses first."""
    lines = []
    for verdict in sorted(verdicts, key=lambda verdict: verdict.status != "NOT MET"):
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
