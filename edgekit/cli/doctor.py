"""`edgekit doctor`."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgekit.errors import OutsideFailure, count

if TYPE_CHECKING:
    from edgekit.emulation.checks import Check

_MARKS = {"ok": "✓", "note": "!", "missing": "✗"}
_WIDTH, _NAME = 110, 14


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def doctor(as_json: bool) -> None:
    """Look at what edgekit needs of this machine: runtimes, disk, Docker engine, emulator.

    Every failure stands with the command that mends it; edgekit changes nothing itself. The exit status is 4
    when something needed is missing (✗), 0 otherwise: a note (!) says what an optional part would need.

    \b
    Example:
      edgekit doctor
    """
    from edgekit.emulation.checks import checks

    found = []
    for check in checks():
        found.append(check)
        if not as_json:
            click.echo(_shown(check))
    if as_json:
        result = {"schema": "edgekit.doctor/1", "checks": [asdict(check) for check in found]}
        click.echo(json.dumps(result, indent=2))
    missing = [check.name for check in found if check.state == "missing"]
    if missing:
        what = f"{count(len(missing), 'thing')} missing: {', '.join(missing)}"
        raise OutsideFailure(what, where="this machine", todo="run the commands that stand there")


def _shown(check: Check) -> str:
    indent = " " * (_NAME + 3)
    head = f"{_MARKS[check.state]} {check.name:<{_NAME}} "
    lines = textwrap.wrap(check.says, _WIDTH, initial_indent=head, subsequent_indent=indent)
    return "\n".join([*lines, f"{indent}{check.todo}"] if check.todo else lines)
