"""The report on a terminal: the outcome first, then what it rests on.

Understandable without colour and in 80 columns; figures are folded, never cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.cost import LABELS
from edgekit.graph.layers import Layer
from edgekit.report.terminal_tables import (
    STYLES,
    WIDE,
    candidates_table,
    layers_table,
    limits_table,
    routes_table,
)
from edgekit.report.words import (
    basis,
    clean,
    headline,
    here_lines,
    join,
    next_commands,
    quality_text,
    subject,
    threads_text,
    took,
    value_text,
)
from edgekit.result import BuildResult


def print_build(result: BuildResult, console: Console, *, report: Path | None = None) -> None:
    """Print how a build came out.

    Args:
        result: the build.
        console: where to; its width decides the layout.
        report: where the HTML report lies, when one was written.
    """
    _print_outcome(result, console)
    _print_limits(result, console)
    _print_candidates(result, console)
    _print_routes(result, console)
    _print_items(console, "To meet the budget", result.relax)
    _print_warnings(result, console)
    _print_origin(result, console)
    _print_places(result, console, report)


def print_plan(result: BuildResult, console: Console, layers: Sequence[tuple[Layer, float]] = ()) -> None:
    """Print the candidates of a plan; nothing of them was built.

    Args:
        result: the plan, whose candidates have predicted costs.
        console: where to.
        layers: every layer of the float network with its predicted time, milliseconds; the slowest are shown.
    """
    _line(console, f"Plan for {clean(result.task)} on {clean(result.target)}", "bold")
    _line(console, "nothing was built; `edgekit build` with the same arguments builds the first that fits")
    for sentence in sorted({line for tried in result.tried for line in basis(tried, result.profile)}):
        _line(console, sentence, "dim")
    if not result.tried:
        _line(console, "there is no candidate")
    _print_budget(result, console)
    _print_candidates(result, console)
    if layers:
        _heading(console, "Slowest layers, float32, predicted")
        console.print(layers_table(layers))
    _print_items(console, "To meet the budget", result.relax)
    _print_warnings(result, console)


def _print_outcome(result: BuildResult, console: Console) -> None:
    line = Text(result.outcome, style=STYLES[result.outcome])
    line.append(f"  {clean(result.task)} on {clean(result.target)}: {headline(result)}", style="bold")
    console.print()
    console.print(line, highlight=False, overflow="fold")
    tried = subject(result)
    if tried is not None:
        _line(console, quality_text(tried.quality))
    for sentence in [*basis(tried, result.profile), *here_lines(tried)]:
        _line(console, sentence)


def _print_limits(result: BuildResult, console: Console) -> None:
    tried = subject(result)
    if tried is None:
        return
    if not any(result.budget.known()):
        _line(console, "no limit was named: give some with `--latency`, `--memory`, `--size`, `--max-drop`")
        return
    _heading(console, f"Limits, as `{clean(tried.name)}` stands against them")
    console.print(limits_table(result.budget, tried))


def _print_budget(result: BuildResult, console: Console) -> None:
    limits = [f"{LABELS[name][0]} {value_text(name, limit)}" for name, limit in result.budget.known()]
    if limits:
        _line(console, f"budget: at most {join(limits)}")


def _print_candidates(result: BuildResult, console: Console) -> None:
    if not result.tried:
        return
    wide = console.width >= WIDE
    _heading(console, "Candidates")
    console.print(candidates_table(result, wide=wide))
    if not wide:
        console.print()
        _bullets(console, [f"{tried.name}: {tried.reason}" for tried in result.tried if tried.reason])


def _print_routes(result: BuildResult, console: Console) -> None:
    wide = console.width >= WIDE
    for tried in result.tried:
        if not tried.routes:
            continue
        _heading(console, f"Routes of `{clean(tried.name)}`, against float32 on this machine, 1 thread")
        console.print(routes_table(tried.routes, wide=wide))
        if not wide:
            console.print()
            _bullets(console, [f"{route.name}: {route.reason}" for route in tried.routes if route.reason])


def _print_items(console: Console, title: str, items: Iterable[str]) -> None:
    lines = list(items)
    if lines:
        _heading(console, title)
        _bullets(console, lines)


def _print_warnings(result: BuildResult, console: Console) -> None:
    if result.warnings:
        console.print()
    for warning in result.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), clean(warning)), overflow="fold")


def _print_origin(result: BuildResult, console: Console) -> None:
    console.print()
    machine = f" on {clean(result.machine)}" if result.machine else ""
    _line(console, f"{clean(result.runtime)}, {threads_text(result.threads)}; built in {took(result.seconds)}{machine}")
    if result.reused:
        _line(console, f"from the cache: {join([clean(stage) for stage in result.reused])}")


def _print_places(result: BuildResult, console: Console, report: Path | None) -> None:
    """The paths and the next commands, in lines that the terminal wraps, so that they can be copied whole."""
    if result.bundle is None:
        _line(console, "no bundle was written")
    for label, path in (("bundle", result.bundle), ("report", report)):
        if path is not None:
            console.print(Text(f"{label}: {clean(path)}"), soft_wrap=True)
    commands = next_commands(result)
    if commands:
        console.print("next:")
    for command in commands:
        console.print(Text(f"  {command}", style="bold"), soft_wrap=True)


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"), overflow="fold")


def _bullets(console: Console, lines: Iterable[str]) -> None:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row("-", Text(clean(line)))
    console.print(grid)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), overflow="fold")
