"""Serve the model over HTTP on a Unix socket or on this machine's own loopback address, until told to end.

The socket answers from the first moment, `/health` with 503 until the model is loaded and a golden sample
agrees. One thread owns the model: it loads it, and runs one inference at a time. Runtimes that keep state for
each thread (CUDA, OpenMP) so find everything where they left it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
from typing import Any

WAITING = 16  # predictions that may wait for the model; beyond, the client is asked to come again
GRACE_SECONDS = 10.0
LEAST_BODY, BYTES_AN_ELEMENT = 1_000_000, 32  # a number in JSON has up to 24 characters
FREE_AXIS_FACTOR = 16


def serve(runner: Any, bundle: str, options: Any) -> int:
    """Answer requests until SIGTERM or SIGINT, then finish those in flight; returns the exit status.

    Raises:
        Refused: the address is none, or taken; the model cannot be loaded; a golden sample does not agree.
    """
    manifest = runner.read_manifest(bundle)
    service = Service(runner, bundle, manifest, options)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with runner.part("serve_address").listening(runner, options.serve) as (listener, shown):
        server = runner.part("serve_http").Server(listener, service)
        service.start(on_change=ended.set, on_ready=lambda: announce(manifest["name"], shown))
        ended.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        service.stop()
        notify("STOPPING=1")
    server.finish(0.0 if service.failure else GRACE_SECONDS)
    left = service.in_flight
    if left:
        say(f"gave up {left} requests after {GRACE_SECONDS:.0f} s")
    if service.failure:
        raise service.failure
    if service.is_busy():
        sys.stdout.flush()
        os._exit(0)  # a runtime in the middle of a call must not be taken down by the interpreter's end
    return 0


def announce(name: str, shown: str) -> None:
    """Tell the user, and systemd where it started this, that the model is ready."""
    say(f"{name} is served on {shown}")
    notify("READY=1")


def say(line: str) -> None:
    """Print one line; who no longer reads them does not end the service."""
    with contextlib.suppress(OSError):
        print(f"run.py: {line}", file=sys.stderr, flush=True)


def notify(state: str) -> None:
    """Tell systemd the state of a unit of `Type=notify`; nothing where it did not start this process."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.sendall(state.encode())


class Service:
    """The model in its thread, and what is known about it.

    Attributes:
        manifest: of the bundle.
        state: "loading", "ok", "failing" (a golden sample no longer agrees) or "stopping".
        version: twelve digits of the SHA-256 of the manifest, which holds those of all other files.
        threads: that one inference uses; None while it loads.
        most_body: bytes of a request's body.
        in_flight: requests that are being read or answered.
        failure: why the model could not be loaded.
    """

    def __init__(self, runner: Any, bundle: str, manifest: Any, options: Any) -> None:
        self.runner, self.bundle, self.manifest = runner, bundle, manifest
        self.state = "loading"
        self.failure: Exception | None = None
        self.threads: int | None = None
        self.metrics = runner.part("serve_metrics").Metrics()
        self.in_flight = 0
        self.most_body = int(options.max_body * 1e6) if options.max_body else LEAST_BODY
        with open(os.path.join(bundle, "manifest.json"), "rb") as file:
            self.version = hashlib.sha256(file.read()).hexdigest()[:12]
        self._asked = options
        self._jobs: queue.Queue[Any] = queue.Queue(WAITING)
        self._running = False

    def start(self, *, on_change: Any, on_ready: Any) -> None:
        """Load the model and run it, in a thread of its own.

        Args:
            on_change: called when the model cannot be loaded.
            on_ready: called when it can be asked.
        """
        threading.Thread(target=self._own, args=(on_change, on_ready), daemon=True).start()

    def stop(self) -> None:
        """Take no new predictions; those that wait are still answered."""
        self.state = "stopping"

    def is_busy(self) -> bool:
        """Whether the model's thread is loading or in the middle of a call."""
        return self._running

    def predict(self, feeds: Any) -> Any:
        """The outputs for checked inputs, in order.

        Raises:
            Busy: too many wait already.
            Refused: the runtime refuses these inputs.
        """
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            self._jobs.put_nowait((feeds, answer))
        except queue.Full:
            raise Busy from None
        result = answer.get()
        if isinstance(result, Exception):
            raise result
        return result

    def _own(self, on_change: Any, on_ready: Any) -> None:
        self._running = True
        try:
            model, sample = self._load()
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self.failure = error
            on_change()
            return
        finally:
            self._running = False
        self.threads = model.threads
        if self.state == "loading":
            self.state = "ok"
            on_ready()
        while True:
            feeds, answer = self._jobs.get()
            self._running = True
            answer.put(self._run(model, sample, feeds))
            self._running = False

    def _load(self) -> Any:
        runner, bundle, manifest = self.runner, self.bundle, self.manifest
        runner.refuse_damage(bundle, manifest)
        sample = runner.read_golden(bundle, manifest, [0])[0]
        if not self._asked.max_body:
            self.most_body = usual_body(manifest["inputs"], sample[0])
        model = runner.load(bundle, self._asked.threads)
        runner.compare_golden(bundle, model, [sample])
        return model, sample

    def _run(self, model: Any, sample: Any, feeds: Any) -> Any:
        start = time.perf_counter()
        try:
            outputs = self.runner.with_runtime(self.bundle, lambda: model.run(feeds))
        except Exception as error:  # noqa: BLE001 - given to the thread that asked
            self.metrics.predict_failed()
            self._look_again(model, sample)
            return error
        self.metrics.predicted(time.perf_counter() - start)
        return outputs

    def _look_again(self, model: Any, sample: Any) -> None:
        """A call failed: whether its inputs are to blame or the model, a golden sample tells."""
        try:
            self.runner.compare_golden(self.bundle, model, [sample])
        except Exception as error:  # noqa: BLE001 - the service goes on, and says that it is unwell
            self.state = "failing" if self.state == "ok" else self.state
            say(str(error))
        else:
            self.state = "ok" if self.state == "failing" else self.state


class Busy(Exception):
    """Too many predictions wait already."""


def usual_body(specs: Any, feeds: Any) -> int:
    """The bytes that a request may have: 32 for each number of the inputs, at least 1 MB.

    An input of free size may have 16 times the numbers that the golden sample has.
    """
    numbers = 0
    for spec in specs:
        free = any(not isinstance(axis, int) for axis in spec["shape"])
        numbers += math.prod(feeds[spec["name"]].shape) * (FREE_AXIS_FACTOR if free else 1)
    return max(LEAST_BODY, BYTES_AN_ELEMENT * numbers)
