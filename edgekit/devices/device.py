"""What every device can do: run a command, and hand its streams over while it runs.

All else that is done on a device is built on this: small programs of `ondevice/remote/`, by its own Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edgekit.errors import OutsideFailure

Stream = Literal["out", "err"]
Detail = Callable[[str], None]
SILENCE_SECONDS = 60.0


class ConnectionLost(OutsideFailure):
    """The way to the device broke; what runs there may go on, and `Device.reconnect` may help."""


class Process(Protocol):
    """A command that runs on a device."""

    def write(self, data: bytes) -> None:
        """Give it input; blocks while it does not read.

        Raises:
            BrokenPipeError: it has ended, or has closed its input; `read` and `status` tell why.
            ConnectionLost: the device takes nothing for the seconds given at its start.
        """

    def end_input(self) -> None:
        """Close its input."""

    def read(self) -> tuple[Stream, bytes] | None:
        """The next piece of its output, never empty; None when both streams have ended.

        Raises:
            ConnectionLost: nothing came for the seconds given at its start, or the connection broke.
        """

    def status(self) -> int:
        """Its exit status, once `read` has given None; that of a process ended by signal N is 128 + N.

        Raises:
            ConnectionLost: the connection broke before it was told.
        """

    def stop(self) -> None:
        """End it if it still runs, and forget it; raises nothing."""


class Device(Protocol):
    """A place where a bundle can run."""

    @property
    def name(self) -> str:
        """What the user calls it: `ssh://pi@raspberrypi.local`, `container:rpi4`, `local`."""

    @property
    def is_here(self) -> bool:
        """Whether it shares this machine's processor, so that two of them disturb one another."""

    def start(self, command: Sequence[str], *, silence: float = SILENCE_SECONDS) -> Process:
        """Start a command, the program and its arguments; no shell sees them.

        Args:
            command: looked up on the device's PATH. One that is not there ends with status 127.
            silence: seconds without a byte after which the connection counts as lost.

        Raises:
            ConnectionLost: the device cannot be reached any more.
        """

    def reconnect(self, *, patience: float, detail: Detail) -> None:
        """Connect again, trying for `patience` seconds; commands of before are forgotten.

        Raises:
            OutsideFailure: it is not back in that time.
        """

    def trouble(self) -> str | None:
        """What the device itself did to a program that failed, in a sentence; None where it tells nothing."""

    def close(self) -> None:
        """Leave it; raises nothing."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: bytes
    stderr: str


def run(
    device: Device, command: Sequence[str], *, given: bytes = b"", silence: float = SILENCE_SECONDS
) -> Done:
    """Run a short command to its end.

    Args:
        device: where.
        command: as for `Device.start`.
        given: its standard input, less than a pipe holds (64 KB) or all of it read before it answers.
        silence: as for `Device.start`.

    Raises:
        ConnectionLost: the device cannot be reached any more.
    """
    pieces: dict[Stream, list[bytes]] = {"out": [], "err": []}
    with started(device, command, silence=silence) as process:
        with contextlib.suppress(BrokenPipeError):
            if given:
                process.write(given)
            process.end_input()
        while (piece := process.read()) is not None:
            pieces[piece[0]].append(piece[1])
        status = process.status()
    return Done(status, b"".join(pieces["out"]), b"".join(pieces["err"]).decode("utf-8", "replace"))


@contextlib.contextmanager
def started(device: Device, command: Sequence[str], *, silence: float = SILENCE_SECONDS) -> Iterator[Process]:
    """A command that is ended when the block is left."""
    process = device.start(command, silence=silence)
    try:
        yield process
    finally:
        process.stop()
