"""Lines of the terminal reports. What comes from outside is made printable here, and is never markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.errors import clean
from edgekit.report.terminal_tables import STYLES


def outcome_line(console: Console, word: str, sentence: str) -> None:
    """The outcome in one word and one sentence."""
    style = next((style for status, style in STYLES.items() if status == word), "bold")
    console.print()
    console.print(Text.assemble((clean(word), style), ("  " + clean(sentence), "bold")), overflow="fold")


def line(console: Console, content: str, style: str = "") -> None:
    """One sentence."""
    console.print(Text(clean(content), style=style), overflow="fold")


def heading(console: Console, content: str) -> None:
    """What the next lines are about."""
    console.print()
    line(console, content, "bold")


def bullets(console: Console, items: Sequence[str], *, gap: bool = True) -> None:
    """Sentences below one another, after an empty line if `gap`; nothing when there is none."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    for item in items:
        grid.add_row("-", Text(clean(item)))
    if items and gap:
        console.print()
    if items:
        console.print(grid)


def warnings(console: Console, items: Sequence[str], word: str = "warning") -> None:
    """One marked line each."""
    if items:
        console.print()
    for item in items:
        console.print(Text.assemble((f"{word}: ", "yellow"), clean(item)), overflow="fold")


def places(console: Console, paths: Mapping[str, Path | None]) -> None:
    """Where things lie, in lines that the terminal wraps, so that they can be copied whole."""
    for label, path in paths.items():
        if path is not None:
            console.print(Text(f"{label}: {clean(path)}"), soft_wrap=True)


def lines_to_copy(console: Console, commands: Sequence[str]) -> None:
    """What to type next."""
    if commands:
        console.print("next:")
    for command in commands:
        console.print(Text(f"  {command}", style="bold"), soft_wrap=True)
