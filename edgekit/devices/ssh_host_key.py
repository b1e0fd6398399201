"""Is the server the one that the user knows? Its host key against the lines of `known_hosts`.

Certificates of hosts are not understood: lines of authorities are passed over.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.devices.ssh_config import Settings
from edgekit.errors import BadInput, OutsideFailure

if TYPE_CHECKING:
    import paramiko

DEFAULT_FILE = Path("~/.ssh/known_hosts")


class HostKeyRefused(OutsideFailure):
    """The server is not known, or is not the one that was known; trying again does not help."""


@dataclass(frozen=True)
class Known:
    """A line of `known_hosts`.

    Attributes:
        kind: of the key, `ssh-ed25519`.
        key: the public key's bytes.
        file, line: where it stands.
        is_revoked: whether the line forbids the key.
    """

    kind: str
    key: bytes
    file: Path
    line: int
    is_revoked: bool


def fingerprint(key: bytes) -> str:
    """Of a public key, as OpenSSH shows it: `SHA256:` and 43 letters."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode("ascii").rstrip("=")


def known_keys(files: Sequence[Path], name: str) -> list[Known]:
    """The keys that the files know for a name; lines that OpenSSH would not understand are passed over."""
    found: list[Known] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if (known := _parse(line, name, file, number)) is not None:
                found.append(known)
    return found


def _parse(line: str, name: str, file: Path, number: int) -> Known | None:
    fields = line.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#") or marker not in ("", "@revoked"):
        return None
    if not _matches(fields[0], name):
        return None
    try:
        key = base64.b64decode(fields[2], validate=True)
    except binascii.Error:
        return None
    return Known(fields[1], key, file, number, marker == "@revoked")


def _matches(patterns: str, name: str) -> bool:
    matched = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            matched |= _hash_matches(pattern, name)
        elif pattern.startswith("!"):
            if fnmatch.fnmatchcase(name, _glob(pattern[1:])):
                return False
        else:
            matched |= fnmatch.fnmatchcase(name, _glob(pattern))
    return matched


def _glob(pattern: str) -> str:
    """OpenSSH knows `*` and `?` alone; brackets stand for themselves."""
    return pattern.lower().replace("[", "[[]")


def _hash_matches(pattern: str, name: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        expected = base64.b64decode(digest, validate=True)
        return hmac.compare_digest(
            hmac.digest(base64.b64decode(salt, validate=True), name.encode(), "sha1"), expected
        )
    except ValueError:
        return False


def preferred_kinds(settings: Settings, all_kinds: Sequence[str]) -> tuple[str, ...]:
    """All kinds of host key, first those known for the host, so that the server shows one of them."""
    known = {key.kind for key in known_keys(settings.known_hosts, settings.known_name) if not key.is_revoked}
    if "ssh-rsa" in known:
        known |= {"rsa-sha2-512", "rsa-sha2-256"}  # ways to sign with the same key
    return tuple(sorted(all_kinds, key=lambda kind: kind not in known))


def check_host_key(settings: Settings, key: paramiko.PKey, where: str, accept: str | None) -> None:
    """Refuse a server that is not known, unless the user accepts this very fingerprint.

    Args:
        settings: of the host.
        key: that it shows.
        where: names the device in the refusal.
        accept: a fingerprint, `SHA256:...`; a key that has it is added to the user's `known_hosts`.

    Raises:
        HostKeyRefused: the key is unknown, another one than is known, or revoked.
    """
    shown, kind = key.asbytes(), key.get_name()
    known = known_keys(settings.known_hosts, settings.known_name)
    if any(line.key == shown and line.is_revoked for line in known):
        what = f"its host key {kind} {fingerprint(shown)} is marked as revoked"
        raise HostKeyRefused(what, where=where, todo="do not connect; ask who runs the device")
    valid = [line for line in known if not line.is_revoked]
    if any(line.key == shown for line in valid):
        return
    if valid:
        raise _changed(
            settings, next((line for line in valid if line.kind == kind), valid[0]), shown, kind, where
        )
    if settings.known_as is None and settings.port != 22:
        plain = known_keys(settings.known_hosts, settings.host.lower())  # as OpenSSH does
        if any(line.key == shown and not line.is_revoked for line in plain):
            return
    if accept is None or accept.rstrip("=") != fingerprint(shown):
        raise _unknown(shown, kind, where, accept)
    _add(settings, key, where)


def check_fingerprint(text: str) -> str:
    """A fingerprint as the user gives it.

    Raises:
        BadInput: it is none.
    """
    digest = text.removeprefix("SHA256:").rstrip("=")
    try:
        is_one = text.startswith("SHA256:") and len(base64.b64decode(digest + "=", validate=True)) == 32
    except binascii.Error:
        is_one = False
    if not is_one:
        todo = "copy it from edgekit's refusal, or from `ssh-keygen -lf` on the device"
        raise BadInput(f"`{text}` is no fingerprint", where="--accept-host-key", todo=todo)
    return text


def _changed(settings: Settings, line: Known, shown: bytes, kind: str, where: str) -> HostKeyRefused:
    file = f' -f "{line.file}"' if line.file != DEFAULT_FILE.expanduser() else ""
    return HostKeyRefused(
        f"THE HOST KEY HAS CHANGED: it shows {kind} {fingerprint(shown)}, but {line.file} line {line.line} "
        f"knows {line.kind} {fingerprint(line.key)}, so someone may stand between you and the device",
        where=where,
        todo=f'if it was set up anew, run `ssh-keygen -R "{settings.known_name}"{file}` and connect again',
    )


def _unknown(shown: bytes, kind: str, where: str, accept: str | None) -> HostKeyRefused:
    if accept is not None:
        what = f"its host key is {kind} {fingerprint(shown)}, not the accepted {accept}"
        return HostKeyRefused(what, where=where, todo="compare it with the device's own before you accept it")
    return HostKeyRefused(
        f"unknown host key {kind} {fingerprint(shown)}",
        where=where,
        todo="if the device itself says so too (`ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` there), "
        f"add --accept-host-key {fingerprint(shown)}",
    )


def _add(settings: Settings, key: paramiko.PKey, where: str) -> None:
    """One write of one whole line, so that others who add one at the same time lose nothing."""
    import paramiko

    name = settings.known_name
    if settings.hash_known_hosts:
        name = paramiko.HostKeys.hash_host(name)
    file = settings.known_hosts[0] if settings.known_hosts else DEFAULT_FILE.expanduser()
    line = f"{name} {key.get_name()} {key.get_base64()}\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            starts_line = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
            os.write(descriptor, (line if starts_line else "\n" + line).encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        what = f"the accepted host key cannot be written to {file}: {error.strerror}"
        raise OutsideFailure(what, where=where) from error
