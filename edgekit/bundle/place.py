"""Where a bundle is put: nothing that is no bundle is overwritten, and nothing appears half-written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgekit.bundle.check import unlisted_files
from edgekit.bundle.manifest import FILE, LONGEST_BUNDLE_NAME, MOST_BYTES, read_manifest
from edgekit.errors import BadInput, EdgekitError, OutsideFailure, clean

CHOOSE = "choose another place with `-o`"


def check_destination(destination: Path) -> None:
    """Refuse a place where no bundle may be put; worth asking before hours of work.

    Raises:
        BadInput: a file, a link, a folder that is no bundle, or a bundle with files of someone's own.
        OutsideFailure: the folder above cannot be looked into, or not be written to.
    """
    _refuse_name(destination)
    with disk_trouble(destination):
        _refuse_above(destination)
        if destination.is_symlink():
            raise BadInput("is a link", where=str(destination), todo=CHOOSE)
        if destination.is_dir():
            _refuse_foreign(destination)
        elif destination.exists():
            raise BadInput("is a file, and the bundle is a folder", where=str(destination), todo=CHOOSE)


def _refuse_name(destination: Path) -> None:
    """Refuse what no bundle may be called, and the folder that the user stands in, which would be moved."""
    name = destination.absolute().name
    if not name.isprintable() or len(name) > LONGEST_BUNDLE_NAME:
        raise BadInput(
            f"is no name for a bundle: at most {LONGEST_BUNDLE_NAME} printable characters",
            where=clean(destination),
            todo=CHOOSE,
        )
    if Path.cwd().is_relative_to(destination.resolve()):
        raise BadInput("is the folder that you are in", where=str(destination), todo=CHOOSE)


def _refuse_above(destination: Path) -> None:
    """Refuse a file where a folder must be, and a folder to which nothing may be written."""
    for folder in destination.absolute().parents:
        if folder.exists() or folder.is_symlink():
            if not folder.is_dir():
                raise BadInput(f"`{folder}` is a file, not a folder", where=str(destination), todo=CHOOSE)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, f"nothing may be written to `{folder}`")
            return


def _refuse_foreign(folder: Path) -> None:
    if not any(folder.iterdir()):
        return
    if not _is_bundle(folder):
        raise BadInput("exists and is no bundle", where=str(folder), todo=CHOOSE)
    try:
        files = read_manifest(folder).files
    except EdgekitError:
        return  # a bundle of another version, or a broken one: made to be replaced
    own = [name for name in unlisted_files(folder, files) if "__pycache__" not in name]
    if own:
        todo = "move it away or choose another place with `-o`"
        raise BadInput(f"holds `{own[0]}`, which is not part of the bundle", where=str(folder), todo=todo)


def _is_bundle(folder: Path) -> bool:
    """Whether the folder says that it is a bundle, of whatever version."""
    try:
        with (folder / FILE).open("rb") as file:
            data = json.loads(file.read(MOST_BYTES))
        return str(data["schema"]).startswith("edgekit.bundle/")
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return False


@contextlib.contextmanager
def fresh_folder(destination: Path) -> Iterator[Path]:
    """A new empty folder beside `destination`, gone again when the block ends, unless it was moved.

    Raises:
        OutsideFailure: it cannot be made.
    """
    partial = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.partial")
    with disk_trouble(destination):
        partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(partial: Path, destination: Path) -> None:
    """Move the finished folder to its place; the bundle that was there goes when the new one stands.

    Raises:
        BadInput: `check_destination` refuses the place.
        OutsideFailure: the disk is full or may not be written.
    """
    check_destination(destination)
    old = destination.with_name(f"{partial.name}.old")
    with disk_trouble(destination):
        if not destination.exists():
            partial.rename(destination)
            return
        destination.rename(old)
        try:
            partial.rename(destination)
        except BaseException:
            old.rename(destination)
            raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def disk_trouble(place: Path) -> Iterator[None]:
    """Turn what the system says of the disk into one line about `place`."""
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        todo = CHOOSE if isinstance(error, PermissionError) else f"make room there, or {CHOOSE}"
        raise OutsideFailure(what, where=str(place), todo=todo) from error
