"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edgekit.errors import OutsideFailure


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
