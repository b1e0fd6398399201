"""Send files to a device: those it lacks, in one stream; a lost connection is taken up where it broke."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.devices.device import ConnectionLost, Detail, Device, Process
from edgekit.devices.program import listen, opened, refusal
from edgekit.errors import BadInput, OutsideFailure, VerificationFailed, first_line

PIECE = 1 << 20
ROUNDS = 3  # of a file whose digest is wrong when it has arrived
FRUITLESS = 5  # connections in a row that broke before anything was sent
PROGRESS_S = 0.5
HASHERS = 4
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a transfer did.

    Attributes:
        bytes_sent: of files, given to the connection; what was under way when it broke is counted again.
        bytes_there: of files, not sent because the device had them.
        files: how many appeared in the folder.
        seconds: from the first look at the files to the last one in its place.
    """

    bytes_sent: int
    bytes_there: int
    files: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _File:
    name: str
    path: Path
    sha256: str
    size: int
    executable: bool


def send(
    device: Device,
    python: str,
    root: str,
    files: Mapping[str, Path],
    folder: str,
    *,
    patience: float,
    detail: Detail,
) -> Sent:
    """Have files on a device; they appear in the folder when all are there and right, each at once.

    Args:
        device: where.
        python: the device's own, of version 3.8 or newer.
        root: edgekit's folder there, absolute.
        files: by their names in the folder, `golden/in.npz`; those of the same content are sent once.
        folder: below root; what else is in it stays.
        patience: seconds for which a connection that broke is tried again, each time that it breaks.
        detail: takes the lines of progress.

    Raises:
        BadInput: a file here cannot be read, or changed in the meantime; a name leads out of the folder.
        OutsideFailure: the device has no room, cannot write, is gone, or is lost again and again.
        VerificationFailed: a file arrives damaged again and again.
    """
    began = time.monotonic()
    listed = _listed(files)
    request = _request(root, folder, listed)
    meter = _Meter(detail)
    rounds = fruitless = 0
    while True:
        before = meter.sent
        try:
            damaged = _attempt(device, python, request, listed, meter)
        except ConnectionLost as lost:
            fruitless = 0 if meter.sent > before else fruitless + 1
            if fruitless == FRUITLESS:
                raise
            detail(f"{lost.what}; going on when it is back")
            device.reconnect(patience=patience, detail=detail)
            continue
        if not damaged:
            break
        rounds += 1
        if rounds == ROUNDS:
            names = ", ".join(file.name for file in listed if file.sha256 in damaged)
            what = f"{names}: damaged on the way {ROUNDS} times"
            raise VerificationFailed(what, where=device.name, todo="try again")
    return Sent(
        bytes_sent=meter.sent,
        bytes_there=sum(file.size for file in _unique(listed)) - meter.lacked,
        files=len(listed),
        seconds=time.monotonic() - began,
    )


def _attempt(device: Device, python: str, request: bytes, listed: list[_File], meter: _Meter) -> list[str]:
    """Send what the device lacks; the digests of what arrived damaged."""
    with opened(device, python, "receive", ["receive"]) as process:
        with contextlib.suppress(BrokenPipeError):  # it refuses, and says why
            process.write(request)
        parts, begun = _parts(process, device, meter.detail)
        lacked = [file for file in _unique(listed) if file.sha256 in parts]
        meter.begin(sum(file.size - parts[file.sha256] for file in lacked))
        with contextlib.suppress(BrokenPipeError):
            for piece in _pieces(lacked, parts):
                meter.add(len(piece))
                process.write(piece)
            process.end_input()
        printed, last = listen(process, meter.detail)
        status = process.status()
    if status != 0:
        raise refusal(status, last, "receive", device.name)
    damaged: list[str] = _json(begun + printed, device)["damaged"]
    return damaged


def _parts(process: Process, device: Device, detail: Detail) -> tuple[dict[str, int], bytes]:
    """The first line that the receiver prints: what it has of each file that is not there whole.

    And what has come of the next one, which follows at once where nothing is missing.
    """
    printed, errors = b"", b""
    while b"\n" not in printed:
        piece = process.read()
        if piece is None:
            last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise refusal(process.status(), last, "receive", device.name)
        if piece[0] == "out":
            printed += piece[1]
        else:
            errors += piece[1]
            detail(errors.decode("utf-8", "replace").strip().rpartition("\n")[2])
    first, _, begun = printed.partition(b"\n")
    parts: dict[str, int] = _json(first, device)["parts"]
    return parts, begun


def _json(printed: bytes, device: Device) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(printed)
    except ValueError as error:
        raise OutsideFailure(f"receive gave no answer: {first_line(error)}", where=device.name) from error
    return answer


def _pieces(lacked: list[_File], parts: Mapping[str, int]) -> Iterator[bytes]:
    """What the device lacks, in the order of the list, small files together.

    Raises:
        BadInput: a file cannot be read, or became shorter.
    """
    gathered = b""
    for file in lacked:
        left = file.size - parts[file.sha256]
        try:
            with file.path.open("rb") as stream:
                stream.seek(file.size - left)
                while left:
                    piece = stream.read(min(PIECE, left))
                    if not piece:
                        raise BadInput(
                            "changed while it was sent", where=str(file.path), todo="send it again"
                        )
                    left -= len(piece)
                    gathered = gathered + piece if gathered else piece
                    if len(gathered) >= PIECE:
                        yield gathered
                        gathered = b""
        except OSError as error:
            raise _unreadable(file.path, error) from error
    if gathered:
        yield gathered


class _Meter:
    """Counts, and tells how it goes.

    Attributes:
        sent: bytes given to the connection.
        lacked: bytes that the device lacked when it was asked first.
    """

    def __init__(self, detail: Detail) -> None:
        self.detail = detail
        self.sent = 0
        self.lacked = 0
        self._has_begun = False
        self._to_send, self._base, self._began, self._told = 0, 0, 0.0, 0.0

    def begin(self, to_send: int) -> None:
        """So many bytes are to be sent now."""
        if not self._has_begun:
            self._has_begun, self.lacked = True, to_send
        self._to_send, self._base = to_send, self.sent
        self._began = self._told = time.monotonic()

    def add(self, number: int) -> None:
        """So many more are being sent."""
        self.sent += number
        now = time.monotonic()
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        done = self.sent - self._base
        rate = done / (now - self._began)
        left = (self._to_send - done) / rate
        self.detail(
            f"sending {done / MB:.1f} of {self._to_send / MB:.1f} MB, {rate / MB:.1f} MB/s, {left:.0f} s left"
        )


def _request(root: str, folder: str, listed: list[_File]) -> bytes:
    files = [
        {"sha256": file.sha256, "size": file.size, "name": file.name, "executable": file.executable}
        for file in listed
    ]
    request = {"root": root, "folder": folder, "token": secrets.token_hex(8), "files": files}
    return json.dumps(request).encode("ascii") + b"\n"


def _listed(files: Mapping[str, Path]) -> list[_File]:
    """The files with their digests; hashing gives up the interpreter's lock, so several go at once."""
    with ThreadPoolExecutor(HASHERS) as pool:
        return list(pool.map(_file, files.keys(), files.values()))


def _file(name: str, path: Path) -> _File:
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            facts = os.fstat(stream.fileno())
            return _File(
                name=name,
                path=path,
                sha256=digest,
                size=stream.tell(),
                executable=bool(facts.st_mode & stat.S_IXUSR),
            )
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"cannot be read: {error.strerror}", where=str(path))


def _unique(listed: list[_File]) -> list[_File]:
    """The first file of each content, in the order of the list, which is the receiver's too."""
    unique: dict[str, _File] = {}
    for file in listed:
        unique.setdefault(file.sha256, file)
    return list(unique.values())
