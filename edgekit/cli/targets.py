"""`edgekit targets`: list, show and validate targets and profiles, and print their JSON schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import complete_target

if TYPE_CHECKING:
    from edgekit.target import Target
    from edgekit.target_record import Record

_JSON = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
_WIDTH = 110
_INDENT = 4
_SHORT = {
    "latency_p50_ms": "p50",
    "latency_p90_ms": "p90",
    "latency_p99_ms": "p99",
    "peak_memory_mb": "memory",
    "size_mb": "size",
    "drop": "drop",
    "class_drop": "class drop",
}


@click.group(invoke_without_command=True)
@_JSON
@click.pass_context
def targets(ctx: click.Context, as_json: bool) -> None:
    """List, show and validate targets and profiles.

    Without a command: every target that `--target` takes. Files of your own are found in ./targets and
    ./profiles, then in the `targets` and `profiles` of your configuration folder.

    \b
    Example:
      edgekit targets
      edgekit targets show rpi4
      edgekit targets validate targets/mine.yaml
      edgekit targets schema target > target.schema.json
    """
    if ctx.invoked_subcommand is not None:
        return
    from edgekit.target_file import names

    found = {name: _load(name) for name in names("target")}
    if as_json:
        click.echo(json.dumps([_summary(name, item) for name, item in found.items()], indent=2))
        return
    head = ("TARGET", "BOARD", "ARCH", "CORES", "MEMORY", "RUNTIMES", "BUDGET")
    rows = [_row(name, item) for name, item in found.items() if not isinstance(item, str)]
    click.echo("\n".join(_aligned([head, *rows])))
    for problem in (item for item in found.values() if isinstance(item, str)):
        click.echo(f"cannot be used: {problem}", err=True)


@targets.command()
@click.argument("name", metavar="NAME|FILE", shell_complete=complete_target)
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show a target and its profile: every figure with its source.

    \b
    Example:
      edgekit targets show rpi4
      edgekit targets show targets/mine.yaml --json
    """
    from edgekit.target import load_target

    target = load_target(name)
    if as_json:
        click.echo(json.dumps({**_plain(target), "sources": dict(target.sources)}, indent=2))
    else:
        click.echo("\n".join(_described(target)))


@targets.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@_JSON
@click.pass_context
def validate(ctx: click.Context, files: Sequence[Path], as_json: bool) -> None:
    """Check target and profile files: every problem on a line; exit status 2 when there is one.

    \b
    Example:
      edgekit targets validate targets/mine.yaml profiles/my-board.yaml
    """
    from edgekit.target import problems_of

    problems = {str(path): [str(problem) for problem in problems_of(path)] for path in files}
    if as_json:
        click.echo(json.dumps(problems, indent=2))
    else:
        for path, lines in problems.items():
            click.echo("\n".join(lines) if lines else f"{path}: valid", err=bool(lines))
    if any(problems.values()):
        ctx.exit(2)


@targets.command()
@click.argument("kind", type=click.Choice(["target", "profile"]), default="target")
def schema(kind: Any) -> None:
    """Print the JSON schema of a target or profile file.

    \b
    Example:
      edgekit targets schema profile > profile.schema.json
    """
    from edgekit.target import schema as schema_of

    click.echo(json.dumps(schema_of(kind), indent=2))


def _load(name: str) -> Target | str:
    """The target, or the line that says why it cannot be used: one broken file must not hide the others."""
    from edgekit.errors import BadInput
    from edgekit.target import load_target

    try:
        return load_target(name)
    except BadInput as error:
        return str(error)


def _plain(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", by_alias=True, exclude_none=True)


def _summary(name: str, target: Target | str) -> dict[str, Any]:
    return {"name": name, "problem": target} if isinstance(target, str) else _plain(target)


def _row(name: str, target: Target) -> tuple[str, ...]:
    from edgekit.cost import show_value

    profile = target.profile
    budget = [f"{_SHORT[key]} {show_value(key, figure.value)}" for key, figure in target.budget.known()]
    memory = show_value("peak_memory_mb", profile.memory_mb)
    # Said wherever it is named: edgekit has not seen TensorRT on hardware yet.
    runtimes = ", ".join(f"{n} (not yet run)" if n == "tensorrt" else n for n in target.runtimes)
    return name, profile.title, profile.arch, str(profile.cores), memory, runtimes, ", ".join(budget)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


def _described(target: Target) -> Iterator[str]:
    """Everything in the target's and the profile's records, in the order of their keys."""
    yield f"{target.name}: {target.title}"
    if target.note:
        yield from textwrap.wrap(target.note, _WIDTH, initial_indent="note: ", subsequent_indent="      ")
    yield from _part("budget", target, "budget.", _plain(target)["budget"].items())
    yield from _part("runtime", target, "", _leaves(target, ("name", "title", "note", "profile", "budget")))
    profile = target.profile
    yield from _part(
        f"profile {profile.name}: {profile.title}",
        profile,
        "",
        _leaves(profile, ("name", "title", "cost_model")),
    )
    yield from _part(
        "cost model of each runtime", profile, "cost_model.", _plain(profile)["cost_model"].items()
    )


def _leaves(record: Record, without: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The keys of the file, by their paths: a mapping of figures is one line for each."""
    from edgekit.target_record import FIGURES, keys

    several = {key for key, info in keys(type(record)).items() if info.json_schema_extra == FIGURES}
    for key, value in _plain(record).items():
        if key in without:
            continue
        if key in several:
            yield from ((f"{key}.{name}", each) for name, each in value.items())
        else:
            yield key, value


def _part(head: str, record: Record, prefix: str, items: Iterable[tuple[str, Any]]) -> Iterator[str]:
    yield ""
    yield head
    for key, value in items:
        yield f"  {key}: {_value(value)}"
        source = record.sources.get(prefix + key)
        if source:
            indent = " " * _INDENT
            yield from textwrap.wrap(source, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
