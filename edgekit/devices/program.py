"""Run a program of `ondevice/remote/` on a device: its source goes over standard input, nothing stays."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekit import ondevice
from edgekit.devices.device import SILENCE_SECONDS, Detail, Device, Process, started
from edgekit.errors import BadInput, EdgekitError, OutsideFailure, VerificationFailed, first_line

ROOT = Path(ondevice.__path__[0])
KINDS: dict[int, type[EdgekitError]] = {
    kind.exit_status: kind for kind in (BadInput, OutsideFailure, VerificationFailed)
}
# The first argument is the length of a JSON list of (name, source); the last of them is the program.
# Python looks for modules in the working folder first, where anything may lie.
START = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import json, types
sources = json.loads(sys.stdin.buffer.read(int(sys.argv.pop(1))).decode())
for name, source in sources:
    module = sys.modules["edgekit_" + name] = types.ModuleType("edgekit_" + name)
    exec(compile(source, name + ".py", "exec"), module.__dict__)
sys.exit(module.main(sys.argv[1:]))
"""


@contextlib.contextmanager
def opened(
    device: Device,
    python: str,
    name: str,
    arguments: Sequence[str] = (),
    *,
    parts: Sequence[str] = (),
    silence: float = SILENCE_SECONDS,
) -> Iterator[Process]:
    """The program `ondevice/remote/NAME.py`, running; its streams are the caller's.

    Args:
        device: where.
        python: the device's own, of version 3.8 or newer.
        name: of the file; its `main(arguments)` gives the exit status.
        arguments: seen by other users of the device in its list of processes: no secrets.
        parts: files of `ondevice/` that it needs; `runner/facts` is there as `sys.modules["edgekit_facts"]`.
        silence: seconds without a byte after which the connection counts as lost.

    Raises:
        ConnectionLost: the device cannot be reached any more.
    """
    files = [*parts, f"remote/{name}"]
    sources = [[Path(file).name, (ROOT / f"{file}.py").read_text(encoding="utf-8")] for file in files]
    text = json.dumps(sources).encode("ascii")
    command = [python, "-c", START, str(len(text)), *arguments]
    with started(device, command, silence=silence) as process:
        with contextlib.suppress(BrokenPipeError):
            process.write(text)
        yield process


def call(  # noqa: PLR0913 - those of `opened`, and two
    device: Device,
    python: str,
    name: str,
    arguments: Sequence[str] = (),
    *,
    given: Iterable[bytes] = (),
    parts: Sequence[str] = (),
    silence: float = SILENCE_SECONDS,
    detail: Detail = lambda _: None,
) -> dict[str, Any]:
    """What the program prints as JSON on its last line.

    Args:
        device: where; as for `opened`, and so are the next ones.
        python: the device's own.
        name: of the file.
        arguments: of the program.
        parts: files that it needs.
        silence: seconds without a byte after which the connection counts as lost.
        given: pieces of its standard input.
        detail: takes each line of its standard error while it runs.

    Raises:
        EdgekitError: the program's own refusal, `NAME: what; todo` on the last line of standard error, of the
            class that belongs to its exit status; OutsideFailure where that is none of ours.
        ConnectionLost: the device cannot be reached any more.
    """
    with opened(device, python, name, arguments, parts=parts, silence=silence) as process:
        with contextlib.suppress(BrokenPipeError):
            for piece in given:
                process.write(piece)
            process.end_input()
        printed, last = listen(process, detail)
        status = process.status()
    if status != 0:
        raise refusal(status, last, name, device.name)
    try:
        answer: dict[str, Any] = json.loads(printed.decode("utf-8").strip().rpartition("\n")[2])
    except ValueError as error:
        raise OutsideFailure(f"{name} gave no answer: {first_line(error)}", where=device.name) from error
    return answer


def listen(process: Process, detail: Callable[[str], None]) -> tuple[bytes, str]:
    """Read both streams to their end: all of standard output, and the last line of standard error."""
    printed: list[bytes] = []
    rest, last = b"", ""
    while (piece := process.read()) is not None:
        if piece[0] == "out":
            printed.append(piece[1])
            continue
        *lines, rest = (rest + piece[1]).split(b"\n")
        for line in lines:
            if text := line.decode("utf-8", "replace").strip():
                last = text
                detail(last)
    last = rest.decode("utf-8", "replace").strip() or last
    return b"".join(printed), last


def refusal(status: int, last: str, name: str, where: str) -> EdgekitError:
    """What a program's exit status and its last line on standard error mean."""
    kind = KINDS.get(status)
    line = last.removeprefix(f"{name}: ")
    if kind is None:
        return OutsideFailure(f"{name} failed with status {status}: {line or 'no message'}", where=where)
    what, _, todo = line.partition("; ")
    return kind(what, where=None if where in what else where, todo=todo or None)
