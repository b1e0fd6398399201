"""How the user names a device: `local`, `ssh://[user@]host[:port]`, `container:TARGET`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgekit.errors import BadInput, clean

EXAMPLES = "write local, ssh://pi@raspberrypi.local or container:rpi4"
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.$-]{0,63}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+(%\w+)?\]", re.ASCII)
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Address:
    """A place as the user named it.

    Attributes:
        kind: how one gets there.
        host: of ssh: a name, an IP address without brackets, or an alias of `~/.ssh/config`.
        user, port: of ssh; None where `~/.ssh/config` or the defaults say.
        target: of a container: whose board it is.
    """

    kind: Literal["local", "ssh", "container"]
    host: str = ""
    user: str | None = None
    port: int | None = None
    target: str = ""

    def __str__(self) -> str:
        """The text that gives it."""
        if self.kind != "ssh":
            return f"container:{self.target}" if self.kind == "container" else "local"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"


def parse_address(text: str, *, where: str = "--on") -> Address:
    """The address that `text` is.

    Raises:
        BadInput: it is none; the line names `where` and shows what one looks like.
    """
    if text == "local":
        return Address(kind="local")
    if text.startswith("container:"):
        name = text.removeprefix("container:")
        if not _TARGET.fullmatch(name):
            raise BadInput(f"`{clean(text, 60)}` names no target", where=where, todo="write container:rpi4")
        return Address(kind="container", target=name)
    if text.startswith("ssh://"):
        return _ssh(text, where)
    raise BadInput(f"`{clean(text, 60)}` is no device", where=where, todo=EXAMPLES)


def _ssh(text: str, where: str) -> Address:
    rest = text.removeprefix("ssh://").removesuffix("/")
    user, at, place = rest.rpartition("@")
    if ":" in user:
        what = "a password in an address ends in histories and lists of processes"
        raise BadInput(what, where=where, todo="leave it out and type it when asked, or use a key")
    host, port = place, ""
    if match := re.fullmatch(r"(.*?):(\d{1,5})", place):
        host, port = match.groups()
    if (
        (at and not _USER.fullmatch(user))
        or not _HOST.fullmatch(host)
        or int(port or 22) not in range(1, 65536)
    ):
        raise BadInput(
            f"`{clean(text, 60)}` is no address", where=where, todo="write ssh://pi@raspberrypi.local"
        )
    return Address(kind="ssh", host=host.strip("[]"), user=user or None, port=int(port) if port else None)
