"""One bundle on several devices, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.bench_on import EMULATED
from edgekit.cost import outcome
from edgekit.errors import EdgekitError, clean
from edgekit.report.bench_facts import machine_text
from edgekit.report.bench_words import show_tail, stand
from edgekit.report.emulated_words import emulated_verdicts
from edgekit.report.terminal_tables import STYLES
from edgekit.report.words import show_mb, show_ms

Record = Mapping[str, Any]
Row = tuple[str, Record | EdgekitError]
HEADS = ("device", "outcome", "latency p50", "p90", "peak memory", "golden")
NO_TIME = "not time"


def print_devices(
    rows: Sequence[tuple[str, Record | EdgekitError]], manifest: Record, console: Console
) -> None:
    """Print the table, then a line for each device that failed.

    Args:
        rows: the device's name, and its record or the error in its place.
        manifest: the bundle's manifest, as parsed JSON.
        console: where to.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, head in enumerate(HEADS):
        table.add_column(head, overflow="fold", no_wrap=number > 0)
    for name, found in rows:
        table.add_row(_device(name, found), *_cells(found, manifest))
    console.print()
    console.print(table)
    if any(not isinstance(found, EdgekitError) and is_emulated(found) for _, found in rows):
        console.print()
        console.print(Text(f"{NO_TIME}: emulated, where no millisecond says anything about the device"))
    for name, found in rows:
        if isinstance(found, EdgekitError):
            said = clean(found).removeprefix(f"{clean(name)}: ")
            console.print(Text.assemble((f"{clean(name)} failed: ", "red"), said), overflow="fold")


def is_emulated(record: Record) -> bool:
    """Whether the record is that of an emulated device, which holds no times."""
    return bool(record["schema"] == EMULATED)


def _device(name: str, found: Record | EdgekitError) -> Text:
    """Its name, and below it what it is."""
    text = Text(clean(name), style="bold")
    if not isinstance(found, EdgekitError):
        emulated = "emulated " if is_emulated(found) else ""
        text.append(f"\n{emulated}{machine_text(found['facts'])}", style="not bold dim")
    return text


def _cells(found: Record | EdgekitError, manifest: Record) -> list[Text]:
    if isinstance(found, EdgekitError):
        return [Text("FAILED", style="bold red"), *([Text("-")] * 4)]
    memory = Text(show_mb(found["memory"]["peak_rss_mb"]))
    if is_emulated(found):
        missed = outcome(emulated_verdicts(found, manifest)) == "NOT MET"
        word = Text("EMULATED, NOT MET" if missed else "EMULATED", style="bold red" if missed else "bold")
        return [word, Text(NO_TIME), Text(NO_TIME), memory, _golden(found["check"]["lowest_snr_db"])]
    standing = stand(found, manifest)
    style = next((style for status, style in STYLES.items() if status == standing.word), "bold")
    latency = found["latency"]
    return [
        Text(standing.word, style=style),
        Text(show_ms(latency["p50_ms"])),
        Text(show_tail(latency["p90_ms"])),
        memory,
        _golden(found["golden_lowest_snr_db"]),
    ]


def _golden(lowest_db: float | None) -> Text:
    return Text("equal" if lowest_db is None else f"{lowest_db:.1f} dB")
