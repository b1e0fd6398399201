"""A command that runs in a container, by the engine's `exec`; its streams come in frames over one socket."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.devices.device import ConnectionLost, Stream
from edgekit.emulation.engine import reason
from edgekit.errors import clean

PIECE = 1 << 16
TICK_SECONDS = 0.5
END_SECONDS = 10.0
HEADER = 8  # which stream, three zeros, the length of what follows
STREAMS: dict[int, Stream] = {1: "out", 2: "err"}
REFUSAL = b"OCI runtime exec failed"  # on standard output, in place of a program that could not be started
NOT_STARTED, NOT_FOUND = 126, 127  # the engine says 126 for both


class ContainerProcess:
    """See `edgekit.devices.device.Process`."""

    def __init__(
        self, api: Any, container: str, command: Sequence[str], *, name: str, silence: float
    ) -> None:
        """Start it.

        Raises:
            DockerException: the container is gone.
        """
        self._api, self._container, self._name, self._silence = api, container, name, silence
        self._exec: str = api.exec_create(container, list(command), stdin=True)["Id"]
        self._file = api.exec_start(self._exec, socket=True)
        self._socket, early = unbuffered(self._file)
        self._frames = Frames(early)
        self._ended = False
        self._took_all = True
        self._refused: int | None = None

    def write(self, data: bytes) -> None:
        """See `Process.write`."""
        left, waited = memoryview(data), 0.0
        while left:
            try:
                left, waited = left[self._socket.send(left) :], 0.0
                continue
            except BlockingIOError:
                pass
            except OSError as error:
                self._took_all = False
                if self._runs():
                    raise ConnectionLost(f"takes no more input: {error}", where=self._name) from error
                raise BrokenPipeError from error
            if not _ready(self._socket, select.POLLOUT, TICK_SECONDS):
                # The engine keeps the connection of a process that has ended and left its input unread.
                waited += TICK_SECONDS
                if not self._runs():
                    self._took_all = False
                    raise BrokenPipeError
                if waited >= self._silence:
                    raise ConnectionLost(f"took no input for {self._silence:.0f} s", where=self._name)

    def end_input(self) -> None:
        """See `Process.end_input`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> tuple[Stream, bytes] | None:
        """See `Process.read`."""
        waited = 0.0
        while (piece := self._frames.next()) is None:
            if self._ended:
                return None
            if _ready(self._socket, select.POLLIN, min(TICK_SECONDS, self._silence)):
                self._receive()
                continue
            waited += TICK_SECONDS
            if not self._took_all and not self._runs():
                self._ended = True  # the connection stays open, for the input that nobody reads
            elif waited >= self._silence:
                raise ConnectionLost(f"no answer for {self._silence:.0f} s", where=self._name)
        if piece[1].startswith(REFUSAL):
            missing = b"not found" in piece[1] or b"no such file" in piece[1]
            self._refused = NOT_FOUND if missing else NOT_STARTED
            return "err", piece[1]
        return piece

    def _receive(self) -> None:
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return
        except ConnectionResetError:  # the process ended with input unread
            data = b""
        except OSError as error:
            raise ConnectionLost(str(error), where=self._name) from error
        self._ended = not data
        self._frames.add(data)

    def status(self) -> int:
        """See `Process.status`."""
        pause = 0.005
        while self._runs():
            time.sleep(pause)
            pause = min(2 * pause, 0.2)
        status = self._look()["ExitCode"]
        if status is None:
            raise ConnectionLost("ended before the program's status was known", where=self._name)
        return int(status) if self._refused is None else self._refused

    def _runs(self) -> bool:
        return bool(self._look()["Running"])

    def _look(self) -> dict[str, Any]:
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            found: dict[str, Any] = self._api.exec_inspect(self._exec)
        except (DockerException, RequestException) as error:
            raise ConnectionLost(f"is gone: {reason(error)}", where=self._name) from error
        return found

    def stop(self) -> None:
        """See `Process.stop`."""
        with contextlib.suppress(ConnectionLost, OSError):
            end = time.monotonic() + END_SECONDS
            while self._runs() and time.monotonic() < end:
                self._kill()
                time.sleep(0.02)
        with contextlib.suppress(OSError):
            self._socket.close()
            self._file._response.close()

    def _kill(self) -> None:
        """End it and the processes of its group, which it leads."""
        pid = int(self._look()["Pid"])
        # The number is the engine's: where that runs in a machine of its own, here it means another process.
        if pid > 0 and self._container in Path(f"/proc/{pid}/cgroup").read_text() and os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)


class Frames:
    """Cuts what the engine sends into the pieces of both streams."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = bytearray(data)
        self._left = 0
        self._stream: Stream = "out"

    def add(self, data: bytes) -> None:
        """More of what the engine sent."""
        self._data += data

    def next(self) -> tuple[Stream, bytes] | None:
        """What is there of the next frame, never empty; None where nothing is."""
        while self._left == 0:
            if len(self._data) < HEADER:
                return None
            self._stream = STREAMS.get(self._data[0], "out")
            self._left = int.from_bytes(self._data[4:HEADER], "big")
            del self._data[:HEADER]
        if not self._data:
            return None
        piece = bytes(self._data[: self._left])
        del self._data[: len(piece)]
        self._left -= len(piece)
        return self._stream, piece


def unbuffered(file: Any) -> tuple[socket.socket, bytes]:
    """The socket below what the SDK gives, not blocking, and what was read from it beyond the answer."""
    own: socket.socket = file._sock
    own.setblocking(False)
    return own, bytes(file._response.raw._fp.fp.peek() or b"")


def said(file: Any) -> str:
    """The last line that a container's first process has said by now, on a connection attached to it."""
    own, early = unbuffered(file)
    frames, text = Frames(early), b""
    with contextlib.suppress(OSError):
        while _ready(own, select.POLLIN, TICK_SECONDS) and (data := own.recv(PIECE)):
            frames.add(data)
    while (piece := frames.next()) is not None:
        text += piece[1]
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return clean(lines[-1], 200) if lines else ""


def _ready(own: socket.socket, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(own, event)
    return bool(poll.poll(seconds * 1000))
