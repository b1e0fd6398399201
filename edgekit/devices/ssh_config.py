"""What the user's `~/.ssh/config` and the system's `/etc/ssh/ssh_config` say about a host.

Understood: Host, Match (host, originalhost, user, localuser, all, final, canonical), Include, HostName, Port,
User, IdentityFile, IdentitiesOnly, IdentityAgent, ProxyJump, ProxyCommand, UserKnownHostsFile,
GlobalKnownHostsFile, HostKeyAlias, HashKnownHosts, ConnectTimeout, ServerAliveInterval.
A Match block with any other word, `exec` too, never matches; a Host line of an included file matches by
itself, also where the Include stands in a block. StrictHostKeyChecking is not heeded: an unknown host key is
always refused.
"""

from __future__ import annotations

import getpass
import glob
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import BadInput, first_line

SYSTEM = Path("/etc/ssh")
DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")  # in OpenSSH's order
CONNECT_SECONDS = 15.0
KEEP_ALIVE_SECONDS = 15
DEPTH = 16  # of files that include one another, as in OpenSSH
MATCHES = {"host", "originalhost", "user", "localuser", "all", "final", "canonical"}
ALONE = {"all", "final", "canonical"}  # those that take no value
NEVER = "Host !*"
_WORD = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.+)")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to get to one host.

    Attributes:
        name: what the user calls it; an alias or a host name.
        host, port, user: where to connect to, and as whom.
        keys: private key files to try, in this order.
        only_keys: whether the agent's other keys are left alone.
        agent: socket of the agent; None means that of the environment, an empty text none at all.
        jump: the hosts between, `user@host:port` each, first the one that is reached first.
        command: of the user's shell, whose streams are the connection.
        known_hosts: files with host keys; an accepted key goes into the first one.
        known_as: the name in those files instead of `host` and `port`.
        hash_known_hosts: whether that name is written as a hash.
        connect_s: time for the TCP connection, for the greeting, and for each step of the login.
        keep_alive_s: after so many idle seconds something is sent; 0 is never.
    """

    name: str
    host: str
    port: int
    user: str
    keys: tuple[Path, ...]
    only_keys: bool
    agent: str | None
    jump: tuple[str, ...]
    command: str | None
    known_hosts: tuple[Path, ...]
    known_as: str | None
    hash_known_hosts: bool
    connect_s: float
    keep_alive_s: int

    @property
    def known_name(self) -> str:
        """What the host is called in `known_hosts`."""
        if self.known_as:
            return self.known_as
        return self.host.lower() if self.port == 22 else f"[{self.host.lower()}]:{self.port}"


def settings_for(name: str, *, user: str | None = None, port: int | None = None) -> Settings:
    """The settings of a host; what the address says goes before what the files say.

    Raises:
        BadInput: a file cannot be read as OpenSSH's configuration.
    """
    found = _look_up(name, user, port)
    home = Path("~/.ssh").expanduser()
    keys = found.get("identityfile") or [str(home / key) for key in DEFAULT_KEYS]
    return Settings(
        name=name,
        host=found.get("hostname", name),
        port=port or _number(found, "port", 22),
        user=user or found.get("user") or getpass.getuser(),
        keys=tuple(Path(key).expanduser() for key in keys if key.lower() != "none"),
        only_keys=_is_yes(found, "identitiesonly"),
        agent=_agent(found.get("identityagent")),
        jump=_jump(found.get("proxyjump")),
        command=found.get("proxycommand"),
        known_hosts=(
            *_files(found.get("userknownhostsfile"), home, ("known_hosts", "known_hosts2")),
            *_files(found.get("globalknownhostsfile"), SYSTEM, ("ssh_known_hosts", "ssh_known_hosts2")),
        ),
        known_as=found.get("hostkeyalias"),
        hash_known_hosts=_is_yes(found, "hashknownhosts"),
        connect_s=float(_number(found, "connecttimeout", 0)) or CONNECT_SECONDS,
        keep_alive_s=_number(found, "serveraliveinterval", KEEP_ALIVE_SECONDS),
    )


def split_jump(text: str) -> tuple[str, str | None, int | None]:
    """Host, user and port of one hop of ProxyJump: `[user@]host[:port]` or `ssh://...`.

    Raises:
        BadInput: it is neither.
    """
    from edgekit.devices.address import parse_address

    address = parse_address(f"ssh://{text.removeprefix('ssh://')}", where="ProxyJump in ~/.ssh/config")
    return address.host, address.user, address.port


def _look_up(name: str, user: str | None, port: int | None) -> dict[str, Any]:
    import paramiko

    home = Path("~/.ssh").expanduser()
    lines = [f"User {user}"] if user else []  # so that `Match user` and a ProxyCommand's %r and %p see them
    lines += [f"Port {port}"] if port else []
    for file in (home / "config", SYSTEM / "ssh_config"):
        lines += ["Host *", *_read(file, file.parent, 0)]
    try:
        return dict(paramiko.SSHConfig.from_text("\n".join(lines)).lookup(name))
    except (paramiko.SSHException, ValueError, KeyError, IndexError) as error:
        raise BadInput(first_line(error), where="~/.ssh/config", todo="mend that line") from error


def _read(file: Path, folder: Path, depth: int) -> list[str]:
    """Its lines, with the included ones in their places; none where it is not there."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=str(file)) from error
    lines: list[str] = []
    block = ""
    for line in text.splitlines():
        word, rest = _split(line)
        if word == "include" and depth < DEPTH:
            for included in _included(rest, folder):
                lines += _read(included, folder, depth + 1)
            lines.append(block or "Host *")
            continue
        if word in ("host", "match"):
            block = _block(line, word, rest)
            line = block  # noqa: PLW2901 - what a block that never matches is replaced by
        lines.append(line)
    return lines


def _split(line: str) -> tuple[str, str]:
    match = _WORD.match(line)
    return (match[1].lower(), match[2].strip()) if match else ("", "")


def _block(line: str, word: str, rest: str) -> str:
    """The line, or one that never matches where it has words that paramiko would take for matching."""
    if word == "host":
        return line
    parts, words = rest.replace("=", " ").split(), ["Match"]
    while parts:
        key = parts.pop(0).lower()
        if key.lstrip("!") not in MATCHES:
            return NEVER
        words.append(key)
        if key.lstrip("!") not in ALONE:
            words += parts[:1]
            parts = parts[1:]
    return " ".join(words)


def _included(rest: str, folder: Path) -> list[Path]:
    try:
        patterns = shlex.split(rest)
    except ValueError:
        return []
    found: list[Path] = []
    for pattern in patterns:
        path = str(folder / Path(pattern).expanduser())
        found += [Path(name) for name in sorted(glob.glob(path))]  # noqa: PTH207 - `**` is `*` for OpenSSH too
    return found


def _is_yes(found: dict[str, Any], key: str) -> bool:
    return str(found.get(key, "no")).lower() in ("yes", "true")


def _number(found: dict[str, Any], key: str, otherwise: int) -> int:
    text = str(found.get(key, otherwise))
    if text.lower() == "none":
        return otherwise
    if not text.isascii() or not text.isdigit():
        raise BadInput(f"{key} is no number: `{text}`", where="~/.ssh/config", todo="mend that line")
    return int(text)


def _agent(text: str | None) -> str | None:
    if text is None or text == "SSH_AUTH_SOCK":
        return None
    return "" if text.lower() == "none" else str(Path(text).expanduser())


def _jump(text: str | None) -> tuple[str, ...]:
    if text is None or text.lower() == "none":
        return ()
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _files(text: str | None, folder: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    if text is None:
        return tuple(folder / name for name in names)
    return tuple(Path(part).expanduser() for part in shlex.split(text) if part.lower() != "none")
