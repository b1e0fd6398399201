"""This machine as a device like any other: where edgekit deploys to the machine that it runs on."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Sequence
from typing import IO, cast

from edgekit.devices.device import SILENCE_SECONDS, ConnectionLost, Detail, Stream

PIECE = 1 << 16
NOT_FOUND = 127  # what a shell gives


class Here:
    """This machine."""

    name = "local"
    is_here = True

    def start(self, command: Sequence[str], *, silence: float = SILENCE_SECONDS) -> HereProcess:
        """See `Device.start`."""
        return HereProcess(command, silence)

    def reconnect(self, *, patience: float, detail: Detail) -> None:
        """There is nothing to connect to."""
        del patience, detail

    def trouble(self) -> None:
        """See `Device.trouble`."""

    def close(self) -> None:
        """There is nothing to leave."""


class HereProcess:
    """A process in a group of its own; see `edgekit.devices.device.Process`."""

    def __init__(self, command: Sequence[str], silence: float) -> None:
        self._silence = silence
        self._not_found: list[tuple[Stream, bytes]] = []
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._process = None
            self._not_found.append(("err", f"{command[0]}: {error.strerror}\n".encode()))
            return
        self._selector = selectors.DefaultSelector()
        for stream, kind in ((self._process.stdout, "out"), (self._process.stderr, "err")):
            self._selector.register(cast(IO[bytes], stream), selectors.EVENT_READ, kind)

    def write(self, data: bytes) -> None:
        """See `Process.write`."""
        if self._process is None or self._process.stdin is None:
            raise BrokenPipeError
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def end_input(self) -> None:
        """See `Process.end_input`."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def read(self) -> tuple[Stream, bytes] | None:
        """See `Process.read`."""
        if self._process is None:
            return self._not_found.pop() if self._not_found else None
        while self._selector.get_map():
            ready = self._selector.select(self._silence)
            if not ready:
                raise ConnectionLost(f"no answer for {self._silence:.0f} s", where="local")
            key = ready[0][0]
            piece = os.read(key.fd, PIECE)
            if piece:
                return cast(Stream, key.data), piece
            self._selector.unregister(key.fileobj)
        return None

    def status(self) -> int:
        """See `Process.status`."""
        if self._process is None:
            return NOT_FOUND
        status = self._process.wait()
        return 128 - status if status < 0 else status

    def stop(self) -> None:
        """See `Process.stop`."""
        if self._process is None:
            return
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
