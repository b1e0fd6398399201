"""The tables of the terminal report. Cells are `Text`, never markup: names come from outside."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from edgekit.cost import LABELS, Cost, Status
from edgekit.graph.layers import Layer
from edgekit.report.words import (
    UNKNOWN,
    clean,
    interval_text,
    latency_field,
    limit_label,
    ratio_text,
    value_text,
)
from edgekit.result import BuildResult, Route, Tried

STYLES: dict[Status, str] = {
    "MET": "bold green",
    "PREDICTED": "bold cyan",
    "NOT MET": "bold red",
    "UNPROVEN": "bold yellow",
}
LAYERS_SHOWN = 10
WIDE = 130


def limits_table(budget: Cost, tried: Tried) -> Table:
    """One row a limit: what it is, the figure, how that was got, the verdict."""
    verdicts = {verdict.name: verdict for verdict in tried.verdicts}
    rows = []
    for name, limit in budget.known():
        verdict = verdicts.get(name)
        figure = verdict.figure if verdict else getattr(tried.cost, name)
        status: Status = verdict.status if verdict else "UNPROVEN"
        rows.append(
            [
                Text(limit_label(name, tried.quality)),
                Text(value_text(name, limit)),
                _figure(name, tried.cost if figure is None else Cost(**{name: figure})),
                Text(figure.how if figure else "not at all"),
                Text(status, style=STYLES[status]),
            ]
        )
    return _table(("limit", "at most", "figure", "got", "verdict"), rows)


def candidates_table(result: BuildResult, *, wide: bool) -> Table:
    """One row a candidate; its reason too when the terminal is wide."""
    latency = latency_field(result.budget, result.tried)
    names = ("size_mb", latency, "peak_memory_mb", "drop")
    heads = ["candidate", "size", LABELS[latency][0], "memory", "drop", "outcome"]
    some_built = any(tried.realised for tried in result.tried)
    rows = []
    for number, tried in enumerate(result.tried):
        shipped = number == result.shipped
        row = [Text(clean(tried.name), style="bold" if shipped else "")]
        row += [_figure(name, tried.cost) for name in names]
        row.append(_outcome(tried, shipped=shipped, unbuilt=some_built and not tried.realised))
        rows.append([*row, Text(clean(tried.reason))] if wide else row)
    return _table([*heads, "reason"] if wide else heads, rows)


def _outcome(tried: Tried, *, shipped: bool, unbuilt: bool) -> Text:
    text = Text(tried.outcome, style=STYLES[tried.outcome]) if tried.outcome else Text("none")
    if shipped:
        text.append("\nshipped", style="bold")
    elif unbuilt:
        text.append("\nnot built", style="dim")
    return text


def routes_table(routes: Sequence[Route], *, wide: bool) -> Table:
    """One row a route of a step, with its figures on this network; the reason too when there is room."""
    heads = ("route", "speed", "size", "drop", "unfused", "kept", "reason")
    rows = [
        [
            Text(clean(route.name), style="bold" if route.chosen else ""),
            Text(ratio_text(route.latency_ratio, "faster", "slower")),
            Text(ratio_text(route.size_ratio, "smaller", "larger")),
            Text(UNKNOWN if route.drop is None else f"{route.drop * 100:.2f} %"),
            Text("-" if route.unfused is None else str(route.unfused)),
            Text("yes" if route.chosen else "no", style="bold green" if route.chosen else ""),
            Text(clean(route.reason)),
        ]
        for route in routes
    ]
    return _table(heads, rows) if wide else _table(heads[:-1], [row[:-1] for row in rows])


def layers_table(layers: Sequence[tuple[Layer, float]]) -> Table:
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
    return _table(("layer", "op", "kind", "M MACs", "time", "share"), rows)


def _figure(name: str, cost: Cost) -> Text:
    figure = getattr(cost, name)
    text = Text(value_text(name, figure), style="" if figure else "dim")
    interval = interval_text(name, figure)
    if interval:
        text.append(f"\n{interval}", style="dim")
    return text


def _table(heads: Sequence[str], rows: Sequence[Sequence[Text]]) -> Table:
    """A table whose columns, but for the name and the reason, keep the width of their longest line.

    What does not fit is folded, never cut off.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for number, head in enumerate(heads):
        lines = [head, *(line for row in rows for line in row[number].plain.split("\n"))]
        width = max(map(len, lines)) if number and head != "reason" else None
        table.add_column(head, overflow="fold", min_width=width)
    for row in rows:
        table.add_row(*row)
    return table
