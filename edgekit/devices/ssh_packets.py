"""How paramiko writes to the network, with an end to its patience: by itself it would wait for hours."""

from __future__ import annotations

import time
from typing import Any

from paramiko.packet import Packetizer  # noqa: TID253 - this file is imported where paramiko is


class Packets(Packetizer):
    """Gives up when the network takes nothing.

    Attributes:
        patience: seconds without a byte taken, after which the connection is broken.
    """

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        self._stream = socket
        self.patience = 60.0

    def write_all(self, out: Any) -> None:
        """Write all of it.

        Raises:
            EOFError: the connection is broken or closed, or takes nothing.
        """
        rest = memoryview(out)
        latest = time.monotonic()
        while rest:
            try:
                taken = self._stream.send(rest)
            except TimeoutError:
                taken = 0
            except Exception as error:
                raise EOFError from error
            if taken:
                rest, latest = rest[taken:], time.monotonic()
            elif self.closed or time.monotonic() - latest > self.patience:
                raise EOFError

    def close(self) -> None:
        """Close it; a timer of an unfinished greeting would keep the process from ending."""
        self.complete_handshake()
        super().close()
