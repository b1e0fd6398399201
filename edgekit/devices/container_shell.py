"""A shell in a container, on the user's own terminal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

from edgekit.devices.container import ContainerDevice
from edgekit.devices.container_process import unbuffered
from edgekit.devices.device import started

PIECE = 1 << 16
SHELL = ["sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"]


def shell(device: ContainerDevice) -> int:
    """Run a shell there on this process's terminal, or on its streams where it has none; its exit status."""
    return _on_terminal(device) if sys.stdin.isatty() and sys.stdout.isatty() else _on_streams(device)


def _on_streams(device: ContainerDevice) -> int:
    """A shell that takes its commands from standard input."""
    with started(device, SHELL, silence=float("inf")) as process:
        with contextlib.suppress(BrokenPipeError):
            while data := os.read(0, PIECE):
                process.write(data)
        process.end_input()
        while (piece := process.read()) is not None:
            stream = sys.stdout if piece[0] == "out" else sys.stderr
            stream.buffer.write(piece[1])
            stream.buffer.flush()
        return process.status()


def _on_terminal(device: ContainerDevice) -> int:
    api = device.client.api
    environment = {"TERM": os.environ.get("TERM", "dumb")}
    command = api.exec_create(device.id, SHELL, stdin=True, tty=True, environment=environment)["Id"]
    own, early = unbuffered(api.exec_start(command, tty=True, socket=True))

    def fit(*_: object) -> None:
        width, height = os.get_terminal_size()
        api.exec_resize(command, height=height, width=width)

    fit()
    with _raw_terminal(), _when_resized(fit):
        _forward(own, early)
    own.close()
    return int(api.exec_inspect(command)["ExitCode"] or 0)


def _forward(own: Any, data: bytes) -> None:
    """What is typed goes there, what is said comes here, until the shell ends."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(own, select.POLLIN)
    while True:
        _put(1, data)
        data = b""
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                typed = os.read(0, PIECE)
                own.setblocking(True)
                own.sendall(typed or b"\x04")
                own.setblocking(False)
                if not typed:
                    poll.unregister(0)
                continue
            try:
                data = own.recv(PIECE)
            except ConnectionResetError:
                return
            if not data:
                return


def _put(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Hand every key over as it is typed, Ctrl-C too: it is meant for what runs there."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _when_resized(fit: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGWINCH, fit)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
