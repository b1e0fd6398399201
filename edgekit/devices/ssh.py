"""A device that is reached by SSH: the user's own board, by the user's own keys and `~/.ssh/config`."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from edgekit.devices.address import Address
from edgekit.devices.device import SILENCE_SECONDS, ConnectionLost, Detail, Stream
from edgekit.devices.ssh_config import settings_for
from edgekit.devices.ssh_host_key import HostKeyRefused, check_fingerprint
from edgekit.devices.ssh_link import Link, connect, is_own_address
from edgekit.devices.ssh_login import Answers, Ask
from edgekit.errors import OutsideFailure

if TYPE_CHECKING:
    import paramiko

    from edgekit.devices.ssh_packets import Packets

PIECE = 1 << 16
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between attempts to connect again; the last one repeats
STOP_SECONDS = 5.0
KILLED = 128 + 9
# Ends the process group whose leader has the mark among its arguments; `[e]` keeps it from finding itself.
END = (
    "for p in /proc/[0-9]*; do grep -q '[e]dgekit-{mark}' $p/cmdline && kill -KILL -${{p##*/}}; done "
    "2>/dev/null"
)


def open_ssh(address: Address, *, accept_host_key: str | None = None, ask: Ask | None = None) -> SshDevice:
    """Connect to a device.

    Args:
        address: of kind ssh.
        accept_host_key: the fingerprint of a host key that is not known yet, `SHA256:...`; it becomes known.
        ask: shows a question and gives back what the user typed unseen; None where nobody can answer.

    Raises:
        BadInput: the fingerprint is none, or `~/.ssh/config` cannot be read.
        OutsideFailure: it cannot be reached, its host key is not known or has changed, the login failed.
    """
    if accept_host_key is not None:
        check_fingerprint(accept_host_key)
    settings = settings_for(address.host, user=address.user, port=address.port)
    answers = Answers(ask)
    name = str(address)
    link = connect(settings, answers, accept_host_key, name, seconds=settings.connect_s)
    answers.silence()

    def again(seconds: float) -> Link:
        limited = replace(settings, connect_s=min(settings.connect_s, seconds))
        return connect(limited, answers, accept_host_key, name, seconds=limited.connect_s)

    return SshDevice(name, link, again)


class SshDevice:
    """See `edgekit.devices.device.Device`."""

    def __init__(self, name: str, link: Link, again: Callable[[float], Link]) -> None:
        self.name = name
        self._link = link
        self._again = again

    @property
    def is_here(self) -> bool:
        """Whether its address is one of this machine's own."""
        return bool(self._link.address) and is_own_address(self._link.address)

    def start(self, command: Sequence[str], *, silence: float = SILENCE_SECONDS) -> SshProcess:
        """See `Device.start`."""
        return SshProcess(self._link.transport, command, silence, self.name)

    def reconnect(self, *, patience: float, detail: Detail) -> None:
        """See `Device.reconnect`; a host key that changed is not waited for."""
        self._link.close()
        end = time.monotonic() + patience
        attempt = 0
        while True:
            attempt += 1
            left = end - time.monotonic()
            detail(f"connecting to {self.name} again, attempt {attempt}, {max(left, 0):.0f} s left")
            try:
                self._link = self._again(max(left, 1.0))
                return
            except HostKeyRefused:
                raise
            except OutsideFailure as error:
                pause = PAUSES[min(attempt, len(PAUSES)) - 1]
                if time.monotonic() + pause >= end:
                    what = (
                        f"the connection was lost and did not come back within {patience:.0f} s: {error.what}"
                    )
                    raise OutsideFailure(what, where=self.name, todo=error.todo) from error
            time.sleep(pause)

    def trouble(self) -> None:
        """See `Device.trouble`."""

    def close(self) -> None:
        """See `Device.close`."""
        self._link.close()


class _Bell(threading.Event):
    """Rung when a stream has something or ends; paramiko's clearing would lose what the other stream rang."""

    def clear(self) -> None:
        """Not by paramiko."""

    def reset(self) -> None:
        """Before the streams are looked at."""
        super().clear()


class SshProcess:
    """A command in a channel of its own; see `edgekit.devices.device.Process`."""

    def __init__(
        self, transport: paramiko.Transport, command: Sequence[str], silence: float, name: str
    ) -> None:
        self._transport, self._silence, self._name = transport, silence, name
        self._packets = cast("Packets", transport.packetizer)
        self._mark = secrets.token_hex(8)
        self._bell = _Bell()
        with self._failing("start a command"), _limited(transport, silence):
            self._packets.patience = silence
            self._channel = transport.open_session(timeout=silence)
            self._channel.settimeout(silence)
            self._channel.in_buffer.set_event(self._bell)
            self._channel.in_stderr_buffer.set_event(self._bell)
            self._channel.exec_command(_text(command, self._mark))
        self._size = self._channel.out_max_packet_size - 64  # what one packet holds, as paramiko reckons

    def write(self, data: bytes) -> None:
        """See `Process.write`."""
        rest = memoryview(data)
        self._packets.patience = self._silence
        while rest:
            with self._failing("send"):
                taken = 0 if self._channel.closed else self._channel.send(bytes(rest[: self._size]))
            if taken == 0:
                self._refuse_if_broken()
                raise BrokenPipeError
            rest = rest[taken:]

    def end_input(self) -> None:
        """See `Process.end_input`."""
        with self._failing("send"):
            self._channel.shutdown_write()

    def read(self) -> tuple[Stream, bytes] | None:
        """See `Process.read`."""
        channel = self._channel
        while True:
            self._bell.reset()
            has_ended = channel.eof_received or channel.closed
            with self._failing("read"):
                if channel.recv_ready():
                    return "out", channel.recv(PIECE)
                if channel.recv_stderr_ready():
                    return "err", channel.recv_stderr(PIECE)
            if has_ended:
                self._refuse_if_broken()
                return None
            if not self._bell.wait(self._silence):
                raise self._lost(f"no answer for {self._silence:.0f} s")

    def status(self) -> int:
        """See `Process.status`."""
        if not self._channel.status_event.wait(self._silence):
            raise self._lost(f"no answer for {self._silence:.0f} s")
        self._refuse_if_broken()
        return KILLED if self._channel.exit_status == -1 else self._channel.exit_status

    def stop(self) -> None:
        """See `Process.stop`; what detached itself from the command's process group lives on."""
        with contextlib.suppress(OutsideFailure, BrokenPipeError):
            if not self._channel.status_event.is_set() and self._transport.is_active():
                end = END.format(mark=self._mark)
                ender = SshProcess(self._transport, ["/bin/sh", "-c", end], STOP_SECONDS, self._name)
                while ender.read() is not None:
                    pass
                ender._channel.close()
        with contextlib.suppress(Exception):  # whatever state it is in
            self._channel.close()

    def _refuse_if_broken(self) -> None:
        """Raise ConnectionLost where the loss of the connection closed the channel, not the server."""
        if not self._channel.closed or self._channel.exit_status != -1:
            return
        end = (
            time.monotonic() + 0.3
        )  # paramiko closes the channels first, and then says that it is not active
        while self._transport.is_active() and time.monotonic() < end:
            time.sleep(0.01)
        if not self._transport.is_active():
            raise self._lost("the connection broke")

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """What paramiko raises, as what it means."""
        import paramiko

        try:
            yield
        except TimeoutError as error:
            raise self._lost(f"nothing was taken for {self._silence:.0f} s") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            text = str(error)
            if self._transport.is_active() and text == "Socket is closed":
                raise BrokenPipeError from error
            if isinstance(error, paramiko.ChannelException) or (
                self._transport.is_active() and text == "Channel closed."
            ):
                what, todo = f"the server refuses to {what}: {text}", "look at the server's log"
                raise OutsideFailure(what, where=self._name, todo=todo) from error
            self._transport.close()  # a packet may be half written
            raise self._lost("the connection broke") from error

    def _lost(self, what: str) -> ConnectionLost:
        return ConnectionLost(what, where=self._name, todo="look whether the device is on and its network up")


def _text(command: Sequence[str], mark: str) -> str:
    """The command for whatever shell the user has there.

    The inner shell stays, so that a signal becomes an exit status, which paramiko would not tell; its last
    argument is the mark that `stop` finds it by.
    """
    return shlex.join(["/bin/sh", "-c", f"{shlex.join(command)}; exit $?", "sh", f"edgekit-{mark}"])


@contextlib.contextmanager
def _limited(transport: paramiko.Transport, seconds: float) -> Iterator[None]:
    """Close the transport where the block takes longer; paramiko would wait for ever."""
    timer = threading.Timer(seconds, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
