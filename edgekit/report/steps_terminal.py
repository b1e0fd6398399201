"""What compression steps did, layer by layer, on a terminal or as text."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.errors import clean
from edgekit.report.lines import bullets, heading
from edgekit.report.terminal_tables import routes_table
from edgekit.report.words import UNKNOWN
from edgekit.result import Change, Route, StepReport

Pair = tuple[int, int]


def print_steps(reports: Iterable[StepReport], console: Console) -> None:
    """For each step what it did to the whole network, a row for each layer that it changed, and its notes."""
    for report in reports:
        heading(console, step_line(report))
        if report.changes:
            console.print(changes_table(report.changes))
        bullets(console, report.notes, gap=bool(report.changes))


def steps_text(reports: Sequence[StepReport], routes: Sequence[Route] = (), *, width: int = 100) -> str:
    """The same as text, and the routes of the step that tried several.

    Args:
        reports: of the network steps.
        routes: of the graph step.
        width: characters in a line.
    """
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    print_steps(reports, console)
    if routes:
        heading(console, "Routes of quantize")
        console.print(routes_table(routes, width))
    return "\n".join(line.rstrip() for line in stream.getvalue().strip("\n").splitlines())


def step_line(report: StepReport) -> str:
    """`prune: 23,850 to 12,658 parameters (53 %), 1.51 to 0.79 M MACs (52 %), in 3.2 s`."""
    parts = []
    for what, pair in (("parameters", report.params), ("M MACs", report.macs)):
        share = f" ({pair[1] / pair[0]:.0%})".replace("%", " %") if pair[0] else ""
        same = f"the same {what}" if pair[0] == pair[1] else f"{_pair(what, pair)} {what}{share}"
        parts.append(same)
    if report.seconds >= 0.1:
        parts.append(f"in {report.seconds:.1f} s")
    return f"{report.step}: {', '.join(parts)}"


def changes_table(changes: Sequence[Change]) -> Table:
    """One row a layer; the error is that of its outputs, relative, where the step looked at it."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for head in ("layer", "what it is now"):
        table.add_column(head, overflow="fold")
    for head in ("parameters", "M MACs", "error"):
        table.add_column(head, justify="right", overflow="fold")
    for change in changes:
        table.add_row(*map(Text, change_cells(change)))
    return table


def change_cells(change: Change) -> tuple[str, str, str, str, str]:
    """One layer: its name, what it is now, parameters, MACs, the error of its outputs."""
    return (
        clean(change.layer),
        clean(change.what),
        _pair("parameters", change.params),
        _pair("M MACs", change.macs),
        "-" if change.error is None else _percent(change.error),
    )


def _pair(what: str, pair: Pair) -> str:
    """Before and after; once where they are the same."""
    shown = [f"{number:,}" if what == "parameters" else _millions(number) for number in pair]
    return shown[0] if pair[0] == pair[1] else " to ".join(shown)


def _millions(number: int) -> str:
    return f"{number / 1e6:.3g}" if number < 1e8 else f"{number / 1e6:,.0f}"


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %" if math.isfinite(share) else UNKNOWN
