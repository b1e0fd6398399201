"""The address that a service listens on: the user's own Unix socket, or a port of this machine alone."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from typing import Any, Iterator

UNIX = "unix:"


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
