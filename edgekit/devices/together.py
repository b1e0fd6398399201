"""Work with several devices at once, each in a thread; questions and Ctrl-C come to the main thread."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from edgekit.errors import OutsideFailure

POLL_S = 0.2
LEAVE_S = 30.0  # what devices get to end what runs there after Ctrl-C

Ask = Callable[[str], str]


class Together:
    """What the threads share.

    Attributes:
        stopped: set by Ctrl-C; then each is to leave its device.
        ask: asks the user by way of the main thread, which Ctrl-C interrupts; None where nobody can answer.
    """

    def __init__(self, ask: Ask | None) -> None:
        self.stopped = threading.Event()
        self.ask = None if ask is None else self._pass_on
        self._answer = ask
        self._questions: queue.SimpleQueue[tuple[str, queue.SimpleQueue[str]]] = queue.SimpleQueue()
        self._on_devices: set[int] = set()

    def run(self, works: Sequence[Callable[[], None]]) -> None:
        """Do all of it at the same time.

        Args:
            works: raise nothing.

        Raises:
            KeyboardInterrupt: as the user's Ctrl-C, when the threads have left their devices.
        """
        # Daemons, so that one that only waits for a connection does not keep the program from ending.
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                with contextlib.suppress(queue.Empty):
                    prompt, reply = self._questions.get(timeout=POLL_S)
                    reply.put(self._answer(prompt) if self._answer else "")
        except (KeyboardInterrupt, EOFError) as error:  # Ctrl-D is what some answer to a question
            self.stopped.set()
            end = time.monotonic() + LEAVE_S
            while self._on_devices and time.monotonic() < end:
                time.sleep(POLL_S)
            raise KeyboardInterrupt from error

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """Within the block this thread has something on its device, which Ctrl-C lets it end."""
        self._on_devices.add(threading.get_ident())
        try:
            yield
        finally:
            self._on_devices.discard(threading.get_ident())

    def _pass_on(self, prompt: str) -> str:
        reply: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._questions.put((prompt, reply))
        while not self.stopped.is_set():
            with contextlib.suppress(queue.Empty):
                return reply.get(timeout=POLL_S)
        raise OutsideFailure("stopped")
