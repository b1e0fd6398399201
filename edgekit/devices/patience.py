"""Keep at something on a device while its connection breaks and comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from edgekit.devices.device import ConnectionLost, Detail, Device
from edgekit.errors import OutsideFailure

T = TypeVar("T")


class Stopped(Exception):
    """The caller wants no more of it."""


class Patience:
    """How long a device that is gone is waited for, and whether it is.

    Attributes:
        is_lost: whether the connection broke and nothing came since.
        is_gone: whether the device was given up.
    """

    def __init__(
        self, device: Device, seconds: float, detail: Detail, stopped: threading.Event | None = None
    ) -> None:
        """Begin with a device that is there.

        Args:
            device: which.
            seconds: from the moment when the connection breaks until something comes again.
            detail: takes a line when it breaks, and those of `Device.reconnect`.
            stopped: ends it when set.
        """
        self.is_gone = False
        self._device, self._seconds, self._detail, self._stopped = device, seconds, detail, stopped
        self._lost_at: float | None = None

    @property
    def is_lost(self) -> bool:
        """See the class."""
        return self._lost_at is not None

    def keep_at(self, action: Callable[[], T], *, lost: str, gone: str) -> T:
        """The action's result; done again, where it takes up what it did before, after the connection broke.

        Args:
            action: calls `heard` when something comes.
            lost: what is said when the connection breaks.
            gone: what more is said when the device is given up.

        Raises:
            OutsideFailure: the device was not back in time, or is there and says nothing.
            Stopped: `stopped` was set.
        """
        while True:
            self._look()
            try:
                result = action()
            except ConnectionLost:
                self._reconnect(lost, gone)
                continue
            self._lost_at = None
            return result

    def heard(self) -> None:
        """Something came from the device.

        Raises:
            Stopped: `stopped` was set.
        """
        self._lost_at = None
        self._look()

    def _reconnect(self, lost: str, gone: str) -> None:
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            self._detail(lost)
        else:
            time.sleep(1)  # connected, and lost at once
        left = self._lost_at + self._seconds - now
        try:
            if left <= 0:
                raise OutsideFailure(f"gone for {self._seconds:.0f} s", where=self._device.name)
            self._device.reconnect(patience=left, detail=self._tell)
        except OutsideFailure as error:
            self.is_gone = True
            todo = error.todo or "look whether the device is on and its network up"
            raise type(error)(f"{error.what}; {gone}", where=error.where, todo=todo) from error

    def _tell(self, line: str) -> None:
        """Give a line of the connection's on, which is a moment to see `stopped` as well."""
        self._look()
        self._detail(line)

    def _look(self) -> None:
        if self._stopped is not None and self._stopped.is_set():
            raise Stopped
