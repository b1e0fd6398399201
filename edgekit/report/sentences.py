"""What a report says about a build: how it came out, what that rests on, what to type next."""

from __future__ import annotations

import math
import shlex

from edgekit.cost import Cost, Status, Verdict, judge
from edgekit.errors import clean
from edgekit.report.words import beside_float, figures_text, limit_label, listed, quality_kind
from edgekit.result import BuildResult, Tried


def subject(result: BuildResult) -> Tried:
    """The candidate in the bundle, which the report is about."""
    return result.tried[result.shipped]


def standing(tried: Tried, budget: Cost) -> tuple[Verdict, ...]:
    """How a candidate stands against each limit."""
    return tried.verdicts or tuple(judge(tried.cost, budget))


def headline(result: BuildResult) -> str:
    """One sentence that says how the build came out."""
    tried = subject(result)
    name = f"`{clean(tried.name)}`"
    if not any(result.budget.known()):
        return f"{name} was built; no limit was named"
    wanting = _labels(tried, result.outcome)
    sentences: dict[Status, str] = {
        "MET": f"{name} keeps every limit of the budget, and each was measured",
        "PREDICTED": f"{name} fits the budget, but {wanting} predicted, not measured",
        "NOT MET": f"nothing that was tried fits the budget; {name} comes nearest: {_misses(tried)}",
        "UNPROVEN": f"{name} may or may not fit the budget: {wanting} not decided",
    }
    return sentences[result.outcome]


def _labels(tried: Tried, status: Status) -> str:
    labels = [limit_label(v.name, quality_kind(tried)) for v in tried.verdicts if v.status == status]
    return f"{listed(labels)} {'is' if len(labels) == 1 else 'are'}" if labels else "one or more limits are"


def _misses(tried: Tried) -> str:
    parts = []
    for verdict in tried.verdicts:
        if verdict.status == "NOT MET":
            finite = math.isfinite(verdict.excess)
            times = f"{verdict.excess:.3g} times the limit" if finite else "above the limit"
            parts.append(f"{limit_label(verdict.name, quality_kind(tried))} is {times}")
    return listed(parts) or clean(tried.reason) or "see the limits"


def basis(result: BuildResult) -> list[str]:
    """What the reader must know about figures that were not measured on the device."""
    tried, where = subject(result), clean(result.profile)
    ways = {(name.startswith("latency"), figure.how) for name, figure in tried.cost.known()}
    lines = []
    if (True, "predicted") in ways:
        todo = "to measure it, run `python run.py --bench` in the bundle there"
        lines.append(f"latency comes from the cost model of profile {where}: {todo}")
    others = [
        name for name, figure in tried.cost.known() if figure.how == "predicted" and "latency" not in name
    ]
    if others:
        labels = listed([limit_label(name, quality_kind(tried)) for name in others])
        lines.append(f"{labels} {'is' if len(others) == 1 else 'are'} predicted too, not measured on {where}")
    if (True, "emulated") in ways or (False, "emulated") in ways:
        lines.append(f"some figures come from an emulated {where}, where time is not real")
    return lines


def here_text(tried: Tried) -> str:
    """What was measured on the machine of the build, where that is not the target; empty when nothing was."""
    speed = beside_float(tried.speedup_here, "faster", "slower")
    return listed(list(filter(None, (figures_text(tried.here), speed))))


def here_lines(tried: Tried) -> list[str]:
    """The same as a sentence of its own."""
    known = here_text(tried) if any(tried.here.known()) else ""
    return [f"on this machine, which is not the target: {known}"] if known else []


def next_commands(result: BuildResult) -> list[str]:
    """What to type next, each with what it does."""
    folder = shlex.quote(clean(result.bundle))
    return [
        f"edgekit bench {folder}  # measure it on this machine",
        f"cd {folder} && python run.py --check  # on the device, once the folder is there",
    ]
