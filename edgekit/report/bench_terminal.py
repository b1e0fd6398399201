"""The report of a benchmark on a terminal: whose figures these are, then the figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.errors import clean
from edgekit.report.bench_facts import machine_text, state_text
from edgekit.report.bench_sustained import sparklines, sustained_line
from edgekit.report.bench_words import (
    elsewhere_lines,
    memory_text,
    mismatch_lines,
    notes,
    runs_text,
    show_tail,
    stand,
    start_text,
    tail_text,
)
from edgekit.report.lines import heading, line, outcome_line, places, warnings
from edgekit.report.terminal_tables import limits_table
from edgekit.report.words import show_mb, show_ms

Record = Mapping[str, Any]


def print_bench(result: Record, manifest: Record, console: Console, *, report: Path | None = None) -> None:
    """Print what a benchmark found.

    Args:
        result: what `run.py --bench` printed, as parsed JSON (schema "edgekit.bench/1").
        manifest: the bundle's manifest, as parsed JSON.
        console: where to.
        report: where the HTML report lies, when one was written.
    """
    standing = stand(result, manifest)
    outcome_line(console, standing.word, f"{clean(manifest['name'])}: {standing.lead}")
    for sentence in elsewhere_lines(result, manifest):
        line(console, sentence)
    warnings(console, [*mismatch_lines(result, manifest), *result["warnings"]])
    console.print()
    console.print(_figures(result))
    if result.get("sustained"):
        _print_sustained(result["sustained"], console)
    if standing.verdicts:
        heading(console, f"Against the budget of {clean(manifest['device']['target'])}")
        kind = str((manifest["quality"] or {}).get("kind", "none"))
        console.print(limits_table(standing.verdicts, kind, console.width))
    warnings(console, notes(result), "note")
    console.print()
    _print_machine(result, console)
    places(console, {"report": report})


def _figures(result: Record) -> Table:
    """One row a figure, with what to know about it."""
    latency = result["latency"]
    rows = [
        ("latency p50", show_ms(latency["p50_ms"]), runs_text(result)),
        ("latency p90", show_tail(latency["p90_ms"]), tail_text("p90", latency)),
        ("latency p99", show_tail(latency["p99_ms"]), tail_text("p99", latency)),
        ("slowest run", show_ms(latency["max_of_all_runs_ms"]), ""),
        ("first call", show_ms(result["first_call_ms"]), start_text(result)),
        ("peak memory", show_mb(result["memory"]["peak_rss_mb"]), memory_text(result)),
    ]
    table = Table.grid(padding=(0, 3))
    for column in ("name", "figure", "more"):
        table.add_column(overflow="fold", min_width=11 if column != "more" else None)
    for name, figure, more in rows:
        table.add_row(Text(name), Text(figure, style="bold"), Text(clean(more)))
    return table


def _print_sustained(sustained: Record, console: Console) -> None:
    """What became of it over time, in a sentence and in blocks."""
    heading(console, "In the long run")
    line(console, sustained_line(sustained))
    table = Table.grid(padding=(0, 3))
    table.add_column(min_width=11)
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, blocks, span in sparklines(sustained):
        table.add_row(Text(name), Text(blocks), Text(span))
    console.print(table)


def _print_machine(result: Record, console: Console) -> None:
    state = state_text(result)
    line(console, f"machine: {machine_text(result['facts'])}{f'; {state}' if state else ''}")
