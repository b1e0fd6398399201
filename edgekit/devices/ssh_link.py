"""A connection to an SSH server: through hosts between, the server recognised, the user logged in."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgekit.devices.ssh_config import Settings, settings_for, split_jump
from edgekit.devices.ssh_host_key import check_host_key, preferred_kinds
from edgekit.devices.ssh_login import Answers, log_in
from edgekit.errors import EdgekitError, OutsideFailure, first_line

if TYPE_CHECKING:
    import paramiko

HOPS = 8
# The fastest first, by benchmarks/transfer.py; no block chaining, no MD5, no SHA-1.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")


@dataclass
class Link:
    """A connection, with those that it goes through.

    Attributes:
        transport: of the last host.
        parts: all that is to be closed, from the network to the transport.
        address: of the host, as numbers; empty where something stands between.
    """

    transport: paramiko.Transport
    parts: list[Any]
    address: str

    def close(self) -> None:
        """Leave all of it; raises nothing."""
        _close(self.parts)


def _close(parts: list[Any]) -> None:
    for part in reversed(parts):
        with contextlib.suppress(Exception):  # whatever state it is in
            part.close()


class ProxyProcess:
    """A `ProxyCommand`; its streams are a socket."""

    def __init__(self, command: str) -> None:
        self.socket, other = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        with other:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=other.fileno(),
                stdout=other.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )

    def last_line(self) -> str:
        """Of what it said on standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.socket.close()
        self._errors.close()


def connect(settings: Settings, answers: Answers, accept: str | None, where: str, *, seconds: float) -> Link:
    """Connect and log in.

    Args:
        settings: of the host.
        answers: gives what has to be typed.
        accept: fingerprint of a host key that is not known yet.
        where: names the device in refusals.
        seconds: for each step: the TCP connection, the greeting with the exchange of keys, the login.

    Raises:
        OutsideFailure: it cannot be reached, is not the host that is known, or does not let the user in.
    """
    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else it prints tracebacks
    return _connect(settings, answers, accept, where, seconds=seconds, hops=0)


def _connect(
    settings: Settings, answers: Answers, accept: str | None, where: str, *, seconds: float, hops: int
) -> Link:
    import paramiko

    from edgekit.devices.ssh_packets import Packets

    parts: list[Any] = []
    try:
        stream, address = _stream(settings, answers, accept, where, seconds, hops, parts)
        transport = paramiko.Transport(stream, packetizer_class=Packets)
        parts.append(transport)
        _greet(transport, settings, where, seconds, parts)
        check_host_key(settings, transport.get_remote_server_key(), where, accept)
        transport.auth_timeout = seconds
        _log_in(transport, settings, answers, where)
        transport.set_keepalive(settings.keep_alive_s)
    except BaseException:
        _close(parts)
        raise
    return Link(transport, parts, address)


def _stream(
    settings: Settings,
    answers: Answers,
    accept: str | None,
    where: str,
    seconds: float,
    hops: int,
    parts: list[Any],
) -> tuple[Any, str]:
    """A socket, or what is like one, to the server, and the server's address where it is known."""
    if settings.jump:
        return _through(settings, answers, accept, where, seconds, hops, parts), ""
    if settings.command is not None:
        proxy = ProxyProcess(settings.command)
        parts.append(proxy)
        return proxy.socket, ""
    connection = _tcp(settings, where, seconds)
    parts.append(connection)
    return connection, connection.getpeername()[0]


def _through(
    settings: Settings,
    answers: Answers,
    accept: str | None,
    where: str,
    seconds: float,
    hops: int,
    parts: list[Any],
) -> Any:
    """A channel of the last host between; that one is reached through those before it."""
    import paramiko

    if hops >= HOPS:
        raise OutsideFailure(
            f"more than {HOPS} hosts between", where=where, todo="mend ProxyJump in ~/.ssh/config"
        )
    host, user, port = split_jump(settings.jump[-1])
    hop = settings_for(host, user=user, port=port)
    if settings.jump[:-1]:
        hop = replace(hop, jump=settings.jump[:-1], command=None)
    link = _connect(hop, answers, accept, f"{where} by way of {host}", seconds=seconds, hops=hops + 1)
    parts.append(link)
    try:
        channel = link.transport.open_channel(
            "direct-tcpip", (settings.host, settings.port), ("127.0.0.1", 0), timeout=seconds
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        reason = error.text if isinstance(error, paramiko.ChannelException) else first_line(error)
        what = f"{host} does not connect to {settings.host} port {settings.port}: {reason}"
        raise OutsideFailure(what, where=where, todo="look whether the device is on") from error
    parts.append(channel)
    return channel


def _tcp(settings: Settings, where: str, seconds: float) -> socket.socket:
    """A TCP connection, to the first of the host's addresses that answers."""
    at = f"{settings.host} port {settings.port}"
    try:
        places = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        what = f"no address is known for {settings.host}: {first_line(error)}"
        raise OutsideFailure(what, where=where, todo="look at the name, or use the IP address") from error
    failure: OSError | None = None
    for family, kind, protocol, _, place in places:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(seconds)
        try:
            connection.connect(place)
        except OSError as error:
            connection.close()
            failure = error
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection
    raise _unreachable(failure, at, seconds, where)


def _unreachable(error: OSError | None, at: str, seconds: float, where: str) -> OutsideFailure:
    if isinstance(error, ConnectionRefusedError):
        return OutsideFailure(f"{at} refuses connections", where=where, todo="start the SSH server there")
    if isinstance(error, TimeoutError):
        what = f"no answer from {at} within {seconds:.0f} s"
        return OutsideFailure(what, where=where, todo="look whether the device is on and its network up")
    if error is not None and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return OutsideFailure(f"no way to {at}: {error.strerror}", where=where, todo="look at the network")
    return OutsideFailure(f"{at} cannot be reached: {error and first_line(error)}", where=where)


def _greet(
    transport: paramiko.Transport, settings: Settings, where: str, seconds: float, parts: list[Any]
) -> None:
    """Exchange greetings and keys."""
    import paramiko

    options = transport.get_security_options()
    options.ciphers, options.digests = CIPHERS, MACS
    options.key_types = preferred_kinds(settings, options.key_types)
    transport.banner_timeout = transport.handshake_timeout = seconds
    at = f"{settings.host} port {settings.port}"
    began = time.monotonic()
    try:
        transport.start_client(timeout=2 * seconds)
    except paramiko.ssh_exception.IncompatiblePeer as error:
        what = f"{at} has no algorithm in common with edgekit: {first_line(error)}"
        raise OutsideFailure(what, where=where, todo="update the SSH server there") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _no_greeting(at, where, time.monotonic() - began, seconds, error, parts) from error
    if not transport.initial_kex_done:
        raise _no_greeting(at, where, time.monotonic() - began, seconds, TimeoutError(), parts)


def _no_greeting(
    at: str, where: str, took: float, seconds: float, error: BaseException, parts: list[Any]
) -> OutsideFailure:
    said = next((part.last_line() for part in parts if isinstance(part, ProxyProcess)), "")
    if said:
        return OutsideFailure(
            f"the ProxyCommand failed: {said}", where=where, todo="mend it in ~/.ssh/config"
        )
    if took >= seconds:
        what = f"{at} did not greet within {seconds:.0f} s"
        return OutsideFailure(what, where=where, todo="look whether the device hangs, or is still starting")
    if isinstance(error, EOFError) or "banner" in str(error):
        what = f"{at} closed the connection before it greeted as an SSH server"
        return OutsideFailure(what, where=where, todo="look at the port, and at the server's log")
    return OutsideFailure(
        f"{at} broke off: {first_line(error)}", where=where, todo="look at the server's log"
    )


def _log_in(transport: paramiko.Transport, settings: Settings, answers: Answers, where: str) -> None:
    import paramiko

    try:
        log_in(transport, settings, answers, where)
    except EdgekitError:
        raise
    except (paramiko.SSHException, EOFError, OSError) as error:
        what = f"the login broke off: {first_line(error)}"
        raise OutsideFailure(what, where=where, todo="look at the server's log") from error


def is_own_address(address: str) -> bool:
    """Whether an address is one of this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address.partition("%")[0], 0))  # only one's own can be taken
        except OSError:
            return False
    return True
