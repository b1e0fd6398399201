"""Run a command on a device that goes on there when the connection breaks, and whose result is collected."""

from __future__ import annotations

import json
import posixpath
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from edgekit.devices.device import ConnectionLost, Detail, Device, Process
from edgekit.devices.patience import Patience, Stopped
from edgekit.devices.program import call, opened, refusal
from edgekit.errors import OutsideFailure

PARTS = ("remote/run_state",)
SILENCE_S = 30.0  # the device gives a sign of life every 2 s
STOP_SILENCE_S = 15.0  # it takes at most 10 s to end a run, and gives no sign meanwhile
STOP_PATIENCE_S = 10.0
MOST_PRINTED = 256 << 20  # bytes; far more than a benchmark's record has
ENDED_BY_SIGNAL = 128

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that has ended by itself.

    Attributes:
        status: its exit status; 128 + N where signal N ended it.
        printed: its standard output.
        last: the last line of its standard error.
        rebooted: whether the device rebooted in the middle, so that this is the second try.
        out_of_memory: whether the device's kernel ended it for lack of memory.
    """

    status: int
    printed: str
    last: str
    rebooted: bool
    out_of_memory: bool


def run_detached(  # noqa: PLR0913 - where, what, how long, and whom to tell
    device: Device,
    python: str,
    root: str,
    command: Sequence[str],
    *,
    seconds: float,
    patience: float,
    detail: Detail,
    stopped: threading.Event | None = None,
) -> Finished:
    """Run a command to its end, whatever happens to the connection meanwhile.

    When the device reboots, the command is run once more. Ctrl-C and `stopped` end it on the device too.

    Args:
        device: where.
        python: of the device, for edgekit's own programs.
        root: edgekit's folder there, absolute.
        command: the program, absolute, and its arguments, which other users of the device can see.
        seconds: after which the device ends it, connected or not.
        patience: seconds that a device that is gone is waited for, each time.
        detail: takes each line of its standard error, once.
        stopped: ends it when set; seen within seconds, and within half a minute while the device is gone.

    Raises:
        OutsideFailure: it took too long, was killed, was stopped, or the disk is full; the device is gone, or
            rebooted twice.
    """
    for rebooted in (False, True):
        run = _Run(device, python, root, Patience(device, patience, detail, stopped), detail)
        end = run.to_its_end(seconds, command)
        if end is not None:
            return Finished(
                status=end["status"],
                printed=run.printed.decode("utf-8", "replace"),
                last=run.last,
                rebooted=rebooted,
                out_of_memory=end["out_of_memory"],
            )
        if not rebooted:
            detail("the device rebooted during the run; running it again")
    todo = "look at its power supply and its temperature"
    raise OutsideFailure("the device rebooted twice during the run", where=device.name, todo=todo)


class _Run:
    """One run on a device, and how much of it has arrived here.

    Attributes:
        printed: what has arrived of its standard output.
        last: the last line that has arrived of its log.
    """

    def __init__(self, device: Device, python: str, root: str, patience: Patience, detail: Detail) -> None:
        self.printed, self.last = bytearray(), ""
        self._device, self._python, self._root = device, python, root
        self._patience, self._detail = patience, detail
        self._id = uuid.uuid4().hex
        self._folder = posixpath.join(root, "runs", self._id)
        self._offset = 0  # how many bytes of the log have arrived
        self._rest = b""  # those of a line's beginning
        self._has_ended = False

    def to_its_end(self, seconds: float, command: Sequence[str]) -> dict[str, Any] | None:
        """Start it, follow it, collect what it printed; None when the device rebooted before it ended."""
        try:
            begun = self._keep_at(lambda: self._call("start", str(seconds), *command))
            end = self._keep_at(self._watch)
            self._has_ended = True
            if end["state"] == "missing" and end["boot"] != begun["boot"]:
                end = {"state": "rebooted"}  # the folder was in memory only
            if end["state"] != "rebooted":
                self._refuse(end, seconds)
                self._keep_at(lambda: self._collect(end["out_bytes"]))
        except Stopped:
            self._leave(seconds)
            raise OutsideFailure("stopped", where=self._device.name) from None
        except BaseException:
            if not self._patience.is_gone:
                self._leave(seconds)
            raise
        self._clean()
        return end if end["state"] == "ended" else None

    def _keep_at(self, action: Callable[[], T]) -> T:
        gone = f"what the run prints will be in {self._folder}/out there for a week"
        return self._patience.keep_at(action, lost="the connection broke; the run goes on there", gone=gone)

    def _refuse(self, end: dict[str, Any], seconds: float) -> None:
        """Raise OutsideFailure where the run did not end by itself."""
        where, todo = self._device.name, None
        if end["state"] == "missing":
            what = f"{self._folder} was removed during the run"
        elif end["state"] == "killed":
            why = ", for lack of memory" if end["out_of_memory"] else ""
            said = f" after it said: {self.last}" if self.last else ""
            what = f"the run was killed on the device{why}{said}"
        elif end["timed_out"]:
            what, todo = f"did not finish in {seconds:.0f} s", "try `--quick`, or a smaller model"
        elif end["disk_full"]:
            what, todo = f"the disk is full: {self._folder}", "free some space there"
        elif end["out_bytes"] > MOST_PRINTED:
            what = f"the run printed {end['out_bytes'] >> 20} MB, which is no record"
        else:
            return
        raise OutsideFailure(what, where=where, todo=todo)

    def _watch(self) -> dict[str, Any]:
        """Follow the log to the end of the run; how it ended."""
        with self._opened("watch", str(self._offset)) as process:
            answer: dict[str, Any] | None = None
            for line in self._lines(process):
                record = json.loads(line)
                if "log" in record:
                    self._log(record["log"].encode("latin-1"), record["offset"])
                else:
                    answer = record
        if answer is None:
            raise ConnectionLost("the look at the run broke off", where=self._device.name)
        return answer

    def _lines(self, process: Process) -> Iterator[bytes]:
        """The lines of a program's output that say something; blank ones are signs of life."""
        rest = b""
        for piece in self._output(process):
            *lines, rest = (rest + piece).split(b"\n")
            yield from filter(None, lines)

    def _log(self, piece: bytes, offset: int) -> None:
        self._offset = offset
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self.last = line.decode("utf-8", "replace").strip() or self.last
            self._detail(self.last)

    def _collect(self, size: int) -> None:
        """Fetch what of `printed` is not here yet."""
        self.last = self._rest.decode("utf-8", "replace").strip() or self.last
        with self._opened("collect", str(len(self.printed))) as process:
            for piece in self._output(process):
                self.printed += piece
        if len(self.printed) < size:
            raise ConnectionLost("the output came in part", where=self._device.name)

    def _output(self, process: Process) -> Iterator[bytes]:
        """What a program prints, until it has ended well.

        Raises:
            ConnectionLost: it was ended with the connection.
            EdgekitError: its own refusal.
        """
        said = b""
        while (piece := process.read()) is not None:
            self._patience.heard()
            if piece[0] == "out":
                yield piece[1]
            else:
                said = (said + piece[1])[-4096:]
        status = process.status()
        if status >= ENDED_BY_SIGNAL:
            raise ConnectionLost("the look at the run was ended", where=self._device.name)
        if status != 0:
            lines = said.decode("utf-8", "replace").strip().splitlines()
            raise refusal(status, lines[-1] if lines else "", "detached", self._device.name)

    def _leave(self, seconds: float) -> None:
        """End it on the device if it still runs, with little patience."""
        action = "clean" if self._has_ended else "stop"
        try:
            if self._patience.is_lost:
                self._device.reconnect(patience=STOP_PATIENCE_S, detail=self._detail)
            try:
                self._call(action, silence=STOP_SILENCE_S)
            except ConnectionLost:
                self._device.reconnect(patience=STOP_PATIENCE_S, detail=self._detail)
                self._call(action, silence=STOP_SILENCE_S)
        except OutsideFailure:
            self._detail(f"the run could not be ended on the device, which will do it after {seconds:.0f} s")

    def _clean(self) -> None:
        """Remove its folder; where that fails, a later run does it."""
        try:
            self._keep_at(lambda: self._call("clean"))
        except (OutsideFailure, Stopped):
            return

    def _call(self, action: str, *more: str, silence: float = SILENCE_S) -> dict[str, Any]:
        arguments = [action, self._root, self._id, *more]
        return call(self._device, self._python, "detached", arguments, parts=PARTS, silence=silence)

    def _opened(self, action: str, *more: str) -> AbstractContextManager[Process]:
        arguments = [action, self._root, self._id, *more]
        return opened(self._device, self._python, "detached", arguments, parts=PARTS, silence=SILENCE_S)
