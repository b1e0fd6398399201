"""The report of an emulated device on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from edgekit.errors import clean
from edgekit.report.count_words import count_lines
from edgekit.report.emulated_words import NO_TIME, emulated_lead, emulated_verdicts
from edgekit.report.lines import heading, line, outcome_line, warnings
from edgekit.report.terminal_tables import limits_table

Record = Mapping[str, Any]


def print_emulated(record: Record, manifest: Record, console: Console) -> None:
    """Print what an emulated device showed.

    Args:
        record: of schema "edgekit.emulated/1".
        manifest: the bundle's manifest, as parsed JSON.
        console: where to.
    """
    outcome_line(console, "EMULATED", f"{clean(manifest['name'])}: {emulated_lead(record)}")
    line(console, NO_TIME)
    # That it is emulated has just been said.
    warnings(console, [said for said in record["mismatches"] if not said.startswith("it is emulated ")])
    verdicts = emulated_verdicts(record, manifest)
    if verdicts:
        heading(console, f"Against the budget of {clean(manifest['device']['target'])}, less what is time")
        kind = str((manifest["quality"] or {}).get("kind", "none"))
        console.print(limits_table(verdicts, kind, console.width))
    if record["count"]:
        heading(console, "Executed instructions of one inference")
        for sentence in count_lines(record["count"]):
            line(console, sentence)
