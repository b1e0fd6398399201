"""A bundle as one file: `.tar.gz`, which Python and every device's `tar` open. Same bundle, same bytes.

An archive may be anyone's: only plain files are taken out of it, into a folder of its own, within bounds.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgekit.bundle.check import SIGNATURE
from edgekit.bundle.manifest import FILE, confine, file_name, read_manifest
from edgekit.errors import BadInput, EdgekitError, OutsideFailure, clean, first_line
from edgekit.files import written_whole

SUFFIX = ".tar.gz"
MOST_FILES = 1100
MOST_BYTES = 4_000_000_000  # unpacked, all files together
MOST_HEADER_BYTES = 100_000  # read between two files: headers, long names
PROGRAMS = frozenset({"run.py"})
PIECE = 1 << 20


def write_archive(bundle: Path, path: Path) -> None:
    """Write the bundle's listed files and its signature to `path`, in one folder that has the bundle's name.

    Dates, owners and modes are fixed; whatever else lies in the folder stays behind.

    Raises:
        BadInput: the folder is no bundle, or `path` is a folder.
        OutsideFailure: the file cannot be written.
    """
    manifest = read_manifest(bundle)
    signed = [SIGNATURE] if os.path.lexists(bundle / SIGNATURE) else []
    names = sorted([FILE, *signed, *manifest.files])
    if path.is_dir():
        raise BadInput("is a folder, and the archive is a file", where=str(path))
    with written_whole(path) as half, half.open("wb") as file, _new_tar(file) as tar:
        for name in names:
            _add(tar, confine(bundle, name), f"{manifest.name}/{name}")


@contextlib.contextmanager
def _new_tar(file: BinaryIO) -> Iterator[tarfile.TarFile]:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


def _add(tar: tarfile.TarFile, source: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = source.stat().st_size
    entry.mode = 0o755 if source.name in PROGRAMS else 0o644
    with source.open("rb") as file:
        tar.addfile(entry, file)


@contextlib.contextmanager
def open_bundle(path: Path) -> Iterator[Path]:
    """The bundle's folder: `path` itself, or where its archive was unpacked until the block ends.

    Raises:
        BadInput: there is nothing, or the file is no archive of a bundle.
    """
    if not path.is_file():
        yield path  # what is wrong with a folder, or with none, is the manifest's subject
        return
    with tempfile.TemporaryDirectory(prefix="edgekit-bundle-") as folder:
        bundle = unpack(path, Path(folder))
        try:
            yield bundle
        except EdgekitError as error:  # the user knows the archive, not the folder that goes now
            where = error.where and error.where.replace(str(bundle), str(path))
            raise type(error)(error.what, where=where, todo=error.todo) from error


def unpack(path: Path, folder: Path) -> Path:
    """Unpack an archive into `folder`; returns the folder of the bundle in it.

    Raises:
        BadInput: it is damaged, no archive of a bundle, or holds what no bundle holds: links, devices, paths
            that lead outside, a file twice, too much.
        OutsideFailure: the files cannot be written.
    """
    try:
        with gzip.open(path) as packed:
            metered = _Metered(packed, str(path))
            # As a stream: every file is passed once, in order, and nothing is sought.
            with tarfile.open(fileobj=metered, mode="r|") as tar:  # type: ignore[call-overload]
                root = _unpack_files(tar, metered, folder, str(path))
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError) as error:
        todo = "give the folder or the archive that `edgekit build` wrote"
        raise BadInput(
            f"not an archive of a bundle ({first_line(error)})", where=str(path), todo=todo
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise _unsafe("holds a file where it has a folder", str(path)) from error
    except OSError as error:
        what = f"cannot be unpacked: {error.strerror or error}"
        room = "set TMPDIR to a folder with room" if error.errno == errno.ENOSPC else None
        raise OutsideFailure(what, where=str(error.filename or path), todo=room) from error
    return folder / root


class _Metered:
    """Hands on what a decompressor gives, up to an allowance: a small archive can unpack without end."""

    def __init__(self, source: io.BufferedIOBase | gzip.GzipFile, where: str) -> None:
        self._source, self._where = source, where
        self.allowance = MOST_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        data = self._source.read(size)
        self.allowance -= len(data)
        if self.allowance < 0:
            raise _unsafe("holds more than it says", self._where)
        return data


def _unpack_files(tar: tarfile.TarFile, metered: _Metered, folder: Path, where: str) -> str:
    total, seen, roots = 0, set[str](), set[str]()
    while True:
        metered.allowance = MOST_HEADER_BYTES
        entry = tar.next()
        if entry is None:
            break
        root, name = _checked_name(entry, where)
        roots.add(root)
        total += entry.size
        if len(roots) > 1 or len(seen) >= MOST_FILES or total > MOST_BYTES:
            raise _unsafe("holds more than one bundle of ordinary size", where)
        if name.casefold() in seen:
            raise _unsafe(f"holds `{name}` twice", where)
        seen.add(name.casefold())
        metered.allowance = entry.size + MOST_HEADER_BYTES
        _write(tar, entry, folder / root / name)
    if not roots:
        raise _unsafe("is empty", where)
    return roots.pop()


def _checked_name(entry: tarfile.TarInfo, where: str) -> tuple[str, str]:
    """The folder and the path in it, when the entry is a plain file with a path that stays inside."""
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse() or entry.size < 0:
        raise _unsafe(f"`{clean(entry.name, 60)}` is no plain file", where)
    root, _, name = entry.name.partition("/")
    if not entry.name.isprintable():
        raise _unsafe(f"`{clean(entry.name, 60)}` holds control characters", where)
    try:
        return file_name(root), file_name(name)
    except ValueError as error:
        raise _unsafe(f"`{clean(entry.name, 60)}` {error}", where) from error


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(entry)
    if source is None:
        raise tarfile.ReadError(f"no content for {clean(entry.name, 60)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        left = entry.size
        while left:
            piece = source.read(min(PIECE, left))
            if not piece:
                raise tarfile.ReadError("unexpected end of data")
            file.write(piece)
            left -= len(piece)


def _unsafe(what: str, where: str) -> BadInput:
    return BadInput(what, where=where, todo="do not use it; ask where it came from")
