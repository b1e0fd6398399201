"""`edgekit emulate`: imitated boards: make their image, list them, look into one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from edgekit.cli.options import complete_target

_TARGET = click.argument("target", shell_complete=complete_target)


@click.group()
def emulate() -> None:
    """Imitate a board in a container: its instruction set, its memory, a clean system; never its speed.

    `edgekit bench BUNDLE --on container:TARGET` runs a bundle there. A container has no network, and nothing
    to write to but its user's folder; it is gone when the command ends.

    \b
    Example:
      edgekit emulate list
      edgekit emulate build rpi4
      edgekit emulate shell rpi4
    """


@emulate.command()
@_TARGET
@click.option(
    "--base", metavar="IMAGE", help="Take this image instead: as `docker pull` names it, with Python."
)
def build(target: str, base: str | None) -> None:
    """Make the image that the board's containers run; it is made once for all boards.

    The image is Debian 12 for arm64 with Python 3.11, put together from Debian's packages: signatures and
    digests are checked, none of their scripts is run, and the same packages give the same image. With
    `--base` it is an image that you name, for this target alone; without it again, that choice is undone.

    \b
    Example:
      edgekit emulate build rpi4
      edgekit emulate build rpi4 --base python:3.13-slim-bookworm
    """
    from edgekit.emulation.board import board_of
    from edgekit.emulation.engine import require_emulation
    from edgekit.emulation.image import choose, made, size_mb, unchoose
    from edgekit.progress import Progress

    board = board_of(target)
    with _engine() as client:
        require_emulation(client)
        with Progress().stage(f"image for {target}") as detail:
            if base is None:
                unchoose(client, target)
                name = made(client, detail)
            else:
                name = choose(client, board, base, detail)
        size = size_mb(client, name)
    click.echo(f"{name}: {size:.0f} MB; `edgekit emulate shell {target}` looks into it")


@emulate.command()
@_TARGET
@click.pass_context
def shell(ctx: click.Context, target: str) -> None:
    """Open a shell on the board; its exit status is the shell's.

    Where standard input is no terminal, the shell reads its commands from there.

    \b
    Example:
      edgekit emulate shell rpi4
      echo 'uname -m; python3 --version' | edgekit emulate shell rpi4
    """
    from edgekit.devices.container import open_container
    from edgekit.devices.container_shell import shell as run_shell
    from edgekit.progress import Progress

    with Progress().stage(f"container:{target}") as detail:
        device = open_container(target, detail=detail)
    try:
        status = run_shell(device)
    finally:
        device.close()
    ctx.exit(status)


@emulate.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_boards(as_json: bool) -> None:
    """List the boards that can be imitated, and the image of each.

    \b
    Example:
      edgekit emulate list
    """
    from edgekit.emulation.board import EMULATOR_MB, board_of, imitable
    from edgekit.emulation.image import chosen, made_tag, size_mb

    boards = [board_of(name) for name in imitable()]
    with _engine() as client:
        images = {board.name: chosen(client, board.name) or made_tag() for board in boards}
        sizes = {image: size_mb(client, image) for image in set(images.values())}
    rows = [
        {
            "target": board.name,
            "cpu": board.cpu,
            "cores": board.cores,
            "memory_mb": board.memory_mb,
            "limit_mb": board.memory_mb + EMULATOR_MB,
            "image": images[board.name],
            "image_mb": sizes[images[board.name]],
        }
        for board in boards
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    head = ("TARGET", "CPU", "CORES", "MEMORY", "IMAGE")
    click.echo("\n".join(_aligned([head, *map(_row, rows)])))


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    size = "not made yet" if row["image_mb"] is None else f"{row['image_mb']:.0f} MB"
    memory = f"{row['memory_mb']:.0f} MB"
    return row["target"], row["cpu"], str(row["cores"]), memory, f"{row['image']} ({size})"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


@contextlib.contextmanager
def _engine() -> Iterator[Any]:
    """The engine, let go at the end."""
    from edgekit.emulation.engine import connect

    client = connect()
    try:
        yield client
    finally:
        client.close()
