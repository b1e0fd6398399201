"""This machine: run edgekit's own copy of the device's runner on a bundle, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekit import ondevice
from edgekit.devices.program import refusal
from edgekit.errors import EdgekitError, OutsideFailure

RUNNER = Path(ondevice.__path__[0]) / "run.py"
GRACE_SECONDS = 5.0


def run_own_runner(
    bundle: Path, options: Sequence[str], *, seconds: float, detail: Callable[[str], None]
) -> dict[str, Any]:
    """What `run.py` prints as JSON for the bundle in `bundle`.

    Args:
        bundle: the folder; its own `run.py` is data from elsewhere and is not executed.
        options: of `run.py`.
        seconds: after which it is ended.
        detail: takes each line of progress.

    Raises:
        EdgekitError: the runner's own refusal, of the class that belongs to its exit status.
        OutsideFailure: it crashed, or took longer than `seconds`.
    """
    command = [sys.executable, str(RUNNER), "--bundle", str(bundle), *options]
    with _started(command) as process:
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _signal(process, signal.SIGKILL)

        timer = threading.Timer(seconds, expire)
        timer.start()
        try:
            printed, last = _listen(process, detail)
        finally:
            timer.cancel()
    if expired.is_set():
        todo = "try `--quick`, or a smaller model"
        raise OutsideFailure(f"did not finish in {seconds:.0f} s", where=str(bundle), todo=todo)
    if process.returncode != 0:
        raise _refusal(process.returncode, last, bundle)
    figures: dict[str, Any] = json.loads(printed)
    return figures


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, whose whole group is ended if the block is left early."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            _end(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _end(process: subprocess.Popen[str]) -> None:
    _signal(process, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _listen(process: subprocess.Popen[str], detail: Callable[[str], None]) -> tuple[str, str]:
    """Read both streams to their end: all of standard output, and the last line of standard error."""
    printed: list[str] = []
    output, errors = process.stdout, process.stderr
    if output is None or errors is None:
        raise ValueError("the streams of the process are not pipes")
    reader = threading.Thread(target=lambda: printed.append(output.read()), daemon=True)
    reader.start()
    last = ""
    for line in errors:
        last = line.strip() or last
        detail(last)
    reader.join()
    process.wait()
    return "".join(printed), last


def _refusal(status: int, last: str, bundle: Path) -> EdgekitError:
    if status < 0:
        name = signal.Signals(-status).name
        return OutsideFailure(f"the runner was ended by {name}", where=str(bundle))
    return refusal(status, last, "run.py", str(bundle))
