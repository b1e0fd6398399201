"""The tables of the terminal report. Cells are `Text`, never markup: names come from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from edgekit.cost import LABELS, Cost, Figure, Status, Verdict
from edgekit.errors import clean, count
from edgekit.graph.layers import Layer
from edgekit.report.words import (
    UNKNOWN,
    interval_text,
    latency_field,
    limit_label,
    ratio_text,
    runtime_text,
    value_text,
)
from edgekit.result import Rival, Route, Tried

STYLES: dict[Status, str] = {
    "MET": "bold green",
    "PREDICTED": "bold cyan",
    "NOT MET": "bold red",
    "UNPROVEN": "bold yellow",
}
LAYERS_SHOWN = 10
WIDE = 130
LEAST_NAME = 10
GAP = 3


def limits_table(verdicts: Sequence[Verdict], kind: str, width: int) -> Table:
    """One row a limit: the figure, how it was got, the verdict; `kind` is that of the quality."""
    rows = [
        [
            Text(limit_label(verdict.name, kind)),
            Text(value_text(verdict.name, verdict.limit)),
            _figure(verdict.name, verdict.figure),
            Text(verdict.figure.how if verdict.figure else "-"),
            Text(verdict.status, style=STYLES[verdict.status]),
        ]
        for verdict in verdicts
    ]
    return _table(("limit", "at most", "figure", "how", "verdict"), rows, width)


def candidates_table(
    candidates: Sequence[Tried], budget: Cost, width: int, *, shipped: int | None = None
) -> Table:
    """One row a candidate; its reason too when the terminal is wide."""
    latency = latency_field(budget, [tried.cost for tried in candidates])
    names = ("size_mb", latency, "peak_memory_mb", "drop")
    heads = ["candidate", "size", LABELS[latency][0], "memory", "drop", "outcome", "reason"]
    rows = []
    for number, tried in enumerate(candidates):
        row = [Text(clean(tried.name), style="bold" if number == shipped else "")]
        row += [_figure(name, getattr(tried.cost, name), interval=name == latency) for name in names]
        rows.append([*row, _outcome(tried, shipped=number == shipped), Text(clean(tried.reason))])
    return _without_reason_unless_wide(heads, rows, width)


def _outcome(tried: Tried, *, shipped: bool) -> Text:
    if not tried.realised or tried.outcome is None:
        return Text("not built", style="dim")
    text = Text(tried.outcome, style=STYLES[tried.outcome])
    return text.append("\nshipped", style="bold") if shipped else text


def runtimes_table(rivals: Sequence[Rival], budget: Cost, width: int) -> Table:
    """One row a runtime of the target, with the float network's figures there; the reason too when wide."""
    latency = latency_field(budget, [rival.cost for rival in rivals])
    names = (latency, "peak_memory_mb", "size_mb")
    heads = ("runtime", LABELS[latency][0], "memory", "size", "time", "chosen", "reason")
    rows = [
        [
            Text(_with_threads(rival), style="bold" if rival.chosen else ""),
            *(_figure(name, getattr(rival.cost, name), interval=name == latency) for name in names),
            Text("-" if rival.ratio is None else f"{rival.ratio:.2f}x"),
            Text("yes" if rival.chosen else "no", style="bold green" if rival.chosen else ""),
            Text(clean(rival.reason)),
        ]
        for rival in rivals
    ]
    return _without_reason_unless_wide(heads, rows, width)


def _with_threads(rival: Rival) -> str:
    threads = "" if rival.threads is None else f", {count(rival.threads, 'thread')}"
    return f"{runtime_text(rival.runtime)}{threads}"


def routes_table(routes: Sequence[Route], width: int) -> Table:
    """One row a route of a step, with its figures on this network; the reason too when there is room."""
    heads = ("route", "speed", "size", "drop", "left in float", "kept", "reason")
    rows = [
        [
            Text(clean(route.name), style="bold" if route.chosen else ""),
            Text(ratio_text(route.latency_ratio, "faster", "slower")),
            Text(ratio_text(route.size_ratio, "smaller", "larger")),
            Text(UNKNOWN if route.drop is None else f"{route.drop * 100:.2f} %"),
            Text("-" if route.left_in_float is None else str(route.left_in_float)),
            Text("yes" if route.chosen else "no", style="bold green" if route.chosen else ""),
            Text(clean(route.reason)),
        ]
        for route in routes
    ]
    return _without_reason_unless_wide(heads, rows, width)


def layers_table(layers: Sequence[tuple[Layer, float]], width: int) -> Table:
    """The slowest layers, each with its share of the time of all the layers given."""
    slowest = sorted(layers, key=lambda item: -item[1])[:LAYERS_SHOWN]
    total_ms = sum(time_ms for _, time_ms in layers) or 1.0
    rows = [
        [
            Text(clean(layer.name)),
            Text(clean(layer.op)),
            Text(layer.kind),
            Text(f"{layer.macs / 1e6:.2f}"),
            Text(f"{time_ms:.3f} ms"),
            Text(f"{time_ms / total_ms * 100:.1f} %"),
        ]
        for layer, time_ms in slowest
    ]
    return _table(("layer", "op", "kind", "M MACs", "time", "share"), rows, width)


def _figure(name: str, figure: Figure | None, *, interval: bool = True) -> Text:
    text = Text(value_text(name, figure), style="" if figure else "dim")
    reach = interval_text(name, figure) if interval else ""
    return text.append(f"\n{reach}", style="dim") if reach else text


def _without_reason_unless_wide(heads: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> Table:
    if width >= WIDE:
        return _table(heads, rows, width)
    return _table(heads[:-1], [row[:-1] for row in rows], width)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> Table:
    """A table whose columns keep the width of their longest line, if the name still has room beside them.

    The name and the reason are folded where they do not fit. In a narrow window all columns are, between
    words as long as the words have room: nothing is cut off.
    """
    columns = {number: [head, *_lines(rows, number)] for number, head in enumerate(heads)}
    needed = {
        number: max(map(len, lines))
        for number, lines in columns.items()
        if number and heads[number] != "reason"
    }
    room = width - GAP * (len(heads) - 1)
    fits = sum(needed.values()) + LEAST_NAME <= room
    narrow = {} if fits else _by_words(columns, room)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for number, head in enumerate(heads):
        least = needed.get(number) if fits else None
        table.add_column(head, overflow="fold", min_width=least, width=narrow.get(number))
    for row in rows:
        table.add_row(*row)
    return table


def _by_words(columns: Mapping[int, Sequence[str]], room: int) -> dict[int, int]:
    """Widths in which no word is broken, the first columns as wide as they can be; none without the room."""
    widths = {number: len(max(" ".join(lines).split(), key=len)) for number, lines in columns.items()}
    spare = room - sum(widths.values())
    if spare < 0:
        return {}
    for number, lines in columns.items():
        more = min(spare, max(map(len, lines)) - widths[number])
        widths[number] += more
        spare -= more
    return widths


def _lines(rows: Sequence[Sequence[Text]], number: int) -> list[str]:
    return [line for row in rows for line in row[number].plain.split("\n")]
