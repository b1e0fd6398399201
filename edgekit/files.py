"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekit.errors import BadInput, OutsideFailure


@contextlib.contextmanager
def written_whole(path: Path, *, todo: str = "free some space or choose another place") -> Iterator[Path]:
    """A place to write to, which becomes `path` when the block ends well; what was there is replaced.

    Args:
        path: folders above it are made.
        todo: advice where it cannot be written.

    Raises:
        OutsideFailure: the disk is full, or the place cannot be written.
    """
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield half
        half.replace(path)
    except OSError as error:
        raise OutsideFailure(
            f"cannot be written: {error.strerror or error}", where=str(path), todo=todo
        ) from error
    finally:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(folder: Path, *, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` when the block ends well; what was there is replaced.

    Args:
        folder: folders above it are made.
        is_ours: whether a folder that is there and not empty may be replaced.

    Raises:
        BadInput: it may not.
        OutsideFailure: the disk is full, or the place cannot be written.
    """
    folder = folder.absolute()
    half = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.half")
    old = half.with_suffix(".old")
    try:
        if folder.is_symlink() or (folder.exists() and not _may_go(folder, is_ours)):
            raise BadInput("holds something else", where=str(folder), todo="choose another folder")
        half.mkdir(parents=True)
        yield half
        if folder.exists():
            folder.rename(old)
        half.rename(folder)
    except OSError as error:
        raise OutsideFailure(
            f"cannot be written: {error.strerror or error}",
            where=str(folder),
            todo="free some space or choose another place",
        ) from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for rest in (half, old):
            shutil.rmtree(rest, ignore_errors=True)


def _may_go(folder: Path, is_ours: Callable[[Path], bool]) -> bool:
    return folder.is_dir() and (not any(folder.iterdir()) or is_ours(folder))
