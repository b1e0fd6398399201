"""The HTTP side of serving: a few paths, small limits on everything that a client may send or withhold."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import socket
import sys
import threading
import time
from typing import Any

CONNECTIONS = 32
REQUEST_SECONDS = 30.0  # from the first byte of a request to its last
IDLE_SECONDS = 5.0  # between two requests of a connection
MOST_HEAD = 65_536  # bytes of the request line and the headers
LINGER_SECONDS = 2.0
PATHS = {"/": "GET", "/health": "GET", "/metrics": "GET", "/predict": "POST"}


class Server:
    """Accepts connections and answers each in a thread; at most 32 at a time, the others wait in the kernel.

    Attributes:
        service: the model, see serve.py.
    """

    def __init__(self, listener: socket.socket, service: Any) -> None:
        self.service, self._listener = service, listener
        self._places = threading.Semaphore(CONNECTIONS)
        self._used, self._lock = 0, threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def finish(self, seconds: float) -> None:
        """Wait until the requests in flight are answered, so long at most."""
        end = time.monotonic() + seconds
        while self.service.in_flight and time.monotonic() < end:
            time.sleep(0.01)

    def is_crowded(self) -> bool:
        """Whether so many connections are open that none should be kept for its next request."""
        return self._used > CONNECTIONS // 2

    def enter(self, change: int) -> None:
        """Count requests in flight."""
        with self._lock:
            self.service.in_flight += change

    def _accept(self) -> None:
        while True:
            self._places.acquire()
            try:
                connection = self._listener.accept()[0]
            except OSError:
                if self._listener.fileno() < 0 or self.service.state == "stopping":
                    return
                self._places.release()
                time.sleep(0.1)  # no file descriptor is free, or the client has gone
                continue
            try:
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
            except RuntimeError:  # the system gives no more threads
                connection.close()
                self._places.release()

    def _answer(self, connection: socket.socket) -> None:
        with self._lock:
            self._used += 1
        try:
            Handler(connection, "", self)  # type: ignore[arg-type]
        except OSError:
            pass  # the client has gone
        except Exception as error:  # noqa: BLE001 - one connection must not end the others
            print(f"run.py: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            connection.close()
            with self._lock:
                self._used -= 1
            self._places.release()


class Late(Exception):
    """The client did not send its request in time."""


class TooLong(Exception):
    """The client sent more than it may."""


class Incoming(io.RawIOBase):
    """What a client sends, up to a time and a number of bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self.end, self.left = connection, 0.0, 0

    def readable(self) -> bool:
        """As every stream that is read."""
        return True

    def allow(self, seconds: float, size: int) -> None:
        """What may come from now on."""
        self.end, self.left = time.monotonic() + seconds, size

    def readinto(self, buffer: Any) -> int:
        """Some bytes.

        Raises:
            Late: nothing came in time.
            TooLong: more came than may.
        """
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise Late
        if self.left <= 0:
            raise TooLong
        self._connection.settimeout(seconds)
        try:
            size = self._connection.recv_into(memoryview(buffer)[: self.left])
        except socket.timeout:
            raise Late from None
        self.left -= size
        return size


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        """Put the limits between the client and what reads from it."""
        self.connection = self.request
        if self.connection.family != getattr(socket, "AF_UNIX", None):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming = Incoming(self.connection)
        self.rfile: Any = io.BufferedReader(self.incoming)
        self.service, self.unread, self.began = self.server.service, False, False

    def finish(self) -> None:
        """Let the client read the last answer: closing with bytes unread takes it away (RFC 9112, 9.6)."""
        if not self.unread:
            return
        with contextlib.suppress(OSError, Late, TooLong):
            self.connection.shutdown(socket.SHUT_WR)
            self.incoming.allow(LINGER_SECONDS, 1 << 40)
            while self.incoming.readinto(bytearray(65_536)):
                pass

    def handle_one_request(self) -> None:
        """Read a request and answer it."""
        self.close_connection, self.began, self.path, self.command = True, False, "", ""
        self.request_version, self.requestline = self.protocol_version, ""
        self.incoming.allow(IDLE_SECONDS, MOST_HEAD)
        try:
            first = self.rfile.peek(1)
        except Late:
            return
        if not first:
            return
        self.server.enter(1)
        try:
            self._answer_one()
        except Late:
            self.send_error(408, f"the request was not complete in {REQUEST_SECONDS:.0f} s")
        except TooLong:
            self.send_error(431, f"the request's head has more than {MOST_HEAD} bytes")
        finally:
            self.server.enter(-1)

    def _answer_one(self) -> None:
        self.incoming.allow(REQUEST_SECONDS, self.incoming.left)
        self.raw_requestline = self.rfile.readline(MOST_HEAD)
        if not self.parse_request():
            return None
        path = self.path.split("?")[0]
        if self.server.is_crowded() or self.service.state == "stopping":
            self.close_connection = True
        allowed = PATHS.get(path)
        if allowed is None:
            return self._refuse(404, f"there is no {path[:80]}; there are {', '.join(PATHS)}")
        if self.command != allowed and (self.command, allowed) != ("HEAD", "GET"):
            more = {"Allow": "GET, HEAD" if allowed == "GET" else allowed}
            return self._refuse(405, f"{path} takes {more['Allow']}", more)
        if allowed == "GET":
            if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
                self.unread = self.close_connection = True
            return {"/": self._describe, "/health": self._health, "/metrics": self._metrics}[path]()
        return self._predict()

    def _describe(self) -> None:
        manifest = self.service.manifest
        wanted = ("name", "shape", "dtype")
        tensors = {
            kind: [{key: spec[key] for key in wanted} for spec in manifest[kind]]
            for kind in ("inputs", "outputs")
        }
        self._send_json(200, dict(self._who(), **tensors, max_body_bytes=self.service.most_body))

    def _who(self) -> dict[str, Any]:
        """Which model this is."""
        manifest = self.service.manifest
        return {
            "name": manifest["name"],
            "runtime": manifest["runtime"]["name"],
            "threads": self.service.threads,
            "version": self.service.version,
        }

    def _health(self) -> None:
        state = self.service.state
        self._send_json(200 if state == "ok" else 503, dict({"status": state}, **self._who()))

    def _metrics(self) -> None:
        part, who = self.service.runner.part, self._who()
        text = self.service.metrics.as_text(
            {key: str(who[key]) for key in ("name", "runtime", "version")},
            ready=self.service.state == "ok",
            in_flight=self.service.in_flight,
            rss_mb=part("facts").rss_mb(),
        )
        self._send(200, text.encode(), part("serve_metrics").CONTENT_TYPE)

    def _predict(self) -> None:
        part, service = self.service.runner.part, self.service
        bodies = part("serve_body")
        size = self._body_size(bodies)
        if size is None:
            return None
        answer_kind = bodies.best_kind(self.headers.get("Accept", ""), len(service.manifest["outputs"]))
        if answer_kind is None:
            taken = f"{bodies.JSON}, {bodies.NPZ}, or for a single output {bodies.NPY}"
            return self._refuse(406, f"the answer can be {taken}")
        if service.state not in ("ok", "failing"):
            return self._refuse(503, f"the model is {service.state}", {"Retry-After": "1"})
        body = self._read_body(size)
        if len(body) < size:
            return self._refuse(400, "the body is shorter than its Content-Length")
        status, content = self._predicted(body, answer_kind)
        if status != 200:
            return self._refuse(status, content, {"Retry-After": "1"} if status == 503 else {}, unread=False)
        return self._send(200, content, answer_kind)

    def _body_size(self, bodies: Any) -> int | None:
        """The bytes that follow, or None when they were refused."""
        lengths, most = self.headers.get_all("Content-Length", []), self.service.most_body
        kind = self.headers.get_content_type()
        if "Transfer-Encoding" in self.headers or not lengths:
            self._refuse(411, "send the body at once, with its Content-Length")
        elif len(set(lengths)) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            self._refuse(400, "the Content-Length is not one number")
        elif len(lengths[0]) > 15 or int(lengths[0]) > most:
            self._refuse(413, f"the body has more than {most} bytes; `--max-body` of run.py allows more")
        elif kind not in bodies.TAKEN:
            self._refuse(415, f"the Content-Type must be one of {', '.join(bodies.TAKEN)}")
        else:
            return int(lengths[0])
        return None

    def _read_body(self, size: int) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.incoming.left = max(0, size)
        body: bytes = self.rfile.read(size)
        return body

    def _predicted(self, body: bytes, kind: str) -> Any:
        """The status, and the body of the answer or the line that says what is wrong."""
        service = self.service
        part, specs, refused = service.runner.part, service.manifest["inputs"], service.runner.Refused
        inputs, bodies = part("inputs"), part("serve_body")
        try:
            given = self.headers.get_content_type()
            arrays = bodies.read(body, given, specs, inputs.WrongInput, service.most_body)
            checked = inputs.check(inputs.match(arrays, specs), specs)
            outputs = service.predict({spec["name"]: checked[i] for i, spec in enumerate(specs)})
        except inputs.WrongInput as error:
            return 400, str(error)
        except part("serve").Busy:
            return 503, "too many predictions wait already"
        except refused as error:
            return (500 if service.state == "failing" else 422), str(error)
        names = [spec["name"] for spec in service.manifest["outputs"]]
        return 200, bodies.write({name: outputs[i] for i, name in enumerate(names)}, kind)

    def _refuse(
        self, status: int, line: str, more: dict[str, str] | None = None, *, unread: bool = True
    ) -> None:
        """Answer with one line; where a body may follow unread, the connection ends with it."""
        if unread:
            self.unread = self.close_connection = True
        self._send_json(status, {"error": " ".join(line.split())}, more)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses, in the same form."""
        del explain
        self._refuse(int(code), message or self.responses.get(code, ("",))[0])

    def _send_json(self, status: int, data: Any, more: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(data).encode() + b"\n", "application/json", more)

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        """Everything in one piece."""
        reason = self.responses.get(status, ("",))[0]
        head = {"Date": self.date_time_string(), "Content-Type": kind, "Content-Length": str(len(body))}
        head.update(more or {}, Connection="close" if self.close_connection else "keep-alive")
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in head.items())]
        content = b"" if self.command == "HEAD" else body
        self.connection.settimeout(REQUEST_SECONDS)
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
        path = self.path.split("?")[0]
        self.service.metrics.answered(path if path in PATHS else "other", status)

    def handle_expect_100(self) -> bool:
        """Wait with it until the request is known to be wanted."""
        return True

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: the metrics count."""
