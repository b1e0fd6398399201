"""The report of a build on a terminal: the outcome first, then what it rests on.

Understandable without colour and in 80 columns; figures are folded, never cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from edgekit.cost import Cost
from edgekit.errors import clean, count
from edgekit.report.lines import bullets, heading, line, lines_to_copy, outcome_line, places, warnings
from edgekit.report.sentences import basis, headline, here_lines, next_commands, standing, subject
from edgekit.report.steps_terminal import print_steps
from edgekit.report.terminal_tables import (
    WIDE,
    candidates_table,
    layers_table,
    limits_table,
    routes_table,
    runtimes_table,
)
from edgekit.report.words import figures_text, listed, quality_kind, quality_text, runtime_text, took
from edgekit.result import BuildResult, Plan, Rival


def print_build(result: BuildResult, console: Console, *, report: Path | None = None) -> None:
    """Print how a build came out.

    Args:
        result: the build.
        console: where to; its width decides the layout.
        report: where the HTML report lies, when one was written.
    """
    _print_outcome(result, console)
    _print_limits(result, console)
    _print_runtimes(result.runtimes, result.budget, console)
    _print_candidates(result, console)
    print_steps(subject(result).steps, console)
    _print_routes(result, console)
    _print_relax(result, console)
    warnings(console, result.notes, "note")
    warnings(console, result.warnings)
    _print_origin(result, console)
    _print_places(result, console, report)


def print_plan(plan: Plan, console: Console) -> None:
    """Print the candidates of a plan, and the slowest layers of the float network."""
    line(console, f"Plan for {clean(plan.task)} on {clean(plan.target)}", "bold")
    line(console, "nothing was built; `edgekit build` with the same arguments builds the first that fits")
    line(console, f"every figure is predicted by the cost model of profile {clean(plan.profile)}")
    line(console, "what memory and quality will be, a build measures")
    if budget := figures_text(plan.budget):
        line(console, f"budget: at most {budget}")
    _print_runtimes(plan.runtimes, plan.budget, console)
    heading(console, "Candidates, mildest first")
    console.print(candidates_table(plan.candidates, plan.budget, console.width))
    if plan.layers:
        heading(console, "Slowest layers, float32, predicted")
        console.print(layers_table(plan.layers, console.width))
    warnings(console, plan.notes, "note")
    warnings(console, plan.warnings)


def _print_outcome(result: BuildResult, console: Console) -> None:
    tried = subject(result)
    about = f"{clean(result.task)} on {clean(result.target)}"
    outcome_line(console, result.outcome, f"{about}: {headline(result)}")
    for sentence in [quality_text(tried.quality), *basis(result), *here_lines(tried)]:
        line(console, sentence)


def _print_limits(result: BuildResult, console: Console) -> None:
    tried = subject(result)
    if not any(result.budget.known()):
        line(console, "name limits with `--latency`, `--memory`, `--size`, `--max-drop`")
        return
    heading(console, f"`{clean(tried.name)}` against the budget")
    console.print(limits_table(standing(tried, result.budget), quality_kind(tried), console.width))


def _print_runtimes(rivals: Sequence[Rival], budget: Cost, console: Console) -> None:
    if len(rivals) < 2:
        return
    heading(console, "Runtimes, with the network as it is")
    console.print(runtimes_table(rivals, budget, console.width))
    if console.width < WIDE:
        bullets(console, [f"{rival.runtime}: {rival.reason}" for rival in rivals])


def _print_candidates(result: BuildResult, console: Console) -> None:
    heading(console, "Candidates, mildest first")
    console.print(candidates_table(result.tried, result.budget, console.width, shipped=result.shipped))
    if console.width < WIDE:
        bullets(console, [f"{tried.name}: {tried.reason}" for tried in result.tried if tried.reason])


def _print_routes(result: BuildResult, console: Console) -> None:
    for tried in result.tried:
        if not tried.routes:
            continue
        heading(console, f"Routes of `{clean(tried.name)}`, against float32 on this machine, 1 thread")
        console.print(routes_table(tried.routes, console.width))
        if console.width < WIDE:
            bullets(console, [f"{route.name}: {route.reason}" for route in tried.routes if route.reason])


def _print_relax(result: BuildResult, console: Console) -> None:
    if result.relax:
        heading(console, "To meet the budget")
        bullets(console, result.relax, gap=False)


def _print_origin(result: BuildResult, console: Console) -> None:
    console.print()
    machine = f" on {clean(result.machine)}" if result.machine else ""
    runtime = f"{runtime_text(result.runtime)}, {count(result.threads, 'thread')}"
    line(console, f"{runtime}; built in {took(result.seconds)}{machine}")
    if result.reused:
        line(console, f"from the cache: {listed([clean(stage) for stage in result.reused])}")


def _print_places(result: BuildResult, console: Console, report: Path | None) -> None:
    places(console, {"bundle": result.bundle, "report": report})
    lines_to_copy(console, next_commands(result))
