"""Serve the model over HTTP on a Unix socket or on this machine's own loopback address, until told to end.

The socket answers from the first moment, `/health` with 503 until the model is loaded and a golden sample
agrees. One thread owns the model: it loads it, and runs one inference at a time. Runtimes that keep state for
each thread (CUDA, OpenMP) so find everything where they left it.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import math
import os
import queue
import signal
import socket
import stat
import sys
import threading
import time
from typing import Any, Iterator

WAITING = 16  # predictions that may wait for the model; beyond, the client is asked to come again
GRACE_SECONDS = 10.0
LEAST_BODY, BYTES_AN_ELEMENT = 1_000_000, 32  # a number in JSON has up to 24 characters
FREE_AXIS_FACTOR = 16
UNIX = "unix:"


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
    with listening(runner, options.serve) as (listener, shown):
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


@contextlib.contextmanager
def listening(runner: Any, address: str) -> Iterator[Any]:
    """A listening socket at the address and how clients name it; closed, and its file removed, at the end."""
    if address.startswith(UNIX):
        path = os.path.abspath(address[len(UNIX) :])
        listener = open_unix(runner, address, path)
        own = os.stat(path)
    else:
        path, listener = "", open_tcp(runner, address)
    shown = UNIX + path if path else "http://%s:%d" % _name(listener.getsockname())
    try:
        yield listener, shown
    finally:
        if path:  # before it is closed: whoever finds the path free may take it
            with contextlib.suppress(OSError):
                if os.path.samestat(own, os.stat(path)):
                    os.unlink(path)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()


def _name(address: Any) -> Any:
    host, port = address[:2]
    return (f"[{host}]" if ":" in host else host), port


def open_tcp(runner: Any, address: str) -> socket.socket:
    """A socket that listens on an address of this machine that no other machine can reach.

    Raises:
        Refused: it is not such an address, or taken.
    """
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        loopback, number = ipaddress.ip_address(host).is_loopback, int(port if port.isdigit() else "none")
    except ValueError:
        todo = "write unix:/path/of.sock or 127.0.0.1:PORT"
        raise runner.Refused(f"--serve {address}: not an address; {todo}", runner.BAD_INPUT) from None
    if not loopback or not 0 <= number <= 65535:
        what = "not a port" if loopback else "other machines could reach it"
        todo = "use a port up to 65535" if loopback else "serve on 127.0.0.1 and put a proxy in front"
        raise runner.Refused(f"--serve {address}: {what}; {todo}", runner.BAD_INPUT)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _bound(runner, listener, address, (host, number))


def open_unix(runner: Any, address: str, path: str) -> socket.socket:
    """A socket file that only this user may use; one that nobody listens on any more is replaced.

    Raises:
        Refused: somebody listens there, another file is there, or it cannot be made.
    """
    import fcntl

    folder = os.path.dirname(path)
    try:
        lock = os.open(folder, os.O_RDONLY)  # of two that start at once, the second must see the first
    except OSError as error:
        raise runner.Refused(f"--serve {address}: {folder}: {error.strerror}", runner.BAD_INPUT) from error
    before = os.umask(0o177)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_stale(runner, address, path)
        return _bound(runner, socket.socket(socket.AF_UNIX), address, path)
    finally:
        os.umask(before)
        os.close(lock)


def _remove_stale(runner: Any, address: str, path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise runner.Refused(f"--serve {address}: another file is there; name a new one", runner.BAD_INPUT)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:
            raise runner.Refused(f"--serve {address}: {error.strerror}", runner.RUNTIME_MISSING) from error
    taken = "another process serves there; end it, or name another path"
    raise runner.Refused(f"--serve {address}: {taken}", runner.RUNTIME_MISSING)


def _bound(runner: Any, listener: socket.socket, address: str, place: Any) -> socket.socket:
    try:
        listener.bind(place)
        listener.listen(128)
    except OSError as error:
        listener.close()
        why = f"{error.strerror or error}; name another address"
        raise runner.Refused(f"--serve {address}: {why}", runner.RUNTIME_MISSING) from error
    return listener
