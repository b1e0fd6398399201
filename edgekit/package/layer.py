"""Trees of files as tar archives: the same files, the same bytes. Layers and packages are made of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

DATE = 1_700_000_000  # of every file: what is packed has no date of its own


@dataclass(frozen=True)
class Content:
    """A file to be packed: its bytes, or the file that holds them."""

    source: bytes | Path
    executable: bool = False

    def read(self) -> bytes:
        """The bytes."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def files_below(folder: Path, place: str) -> dict[str, Content]:
    """Every file below a folder, by its path below `place`."""
    return {
        f"{place}/{path.relative_to(folder).as_posix()}": Content(path, bool(path.stat().st_mode & 0o100))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tar_of(
    files: Mapping[str, Content], *, prefix: str = "", folders: Mapping[str, int] | None = None
) -> bytes:
    """A tar of the files and of the folders above them, all root's, in the order of their names.

    Args:
        files: by absolute path without the first slash: `opt/model/run.py`.
        prefix: before every name: `./` in Debian packages.
        folders: more folders, with their modes.
    """
    buffer = io.BytesIO()
    modes = {str(up): 0o755 for name in (*files, *(folders or {})) for up in PurePosixPath(name).parents}
    modes |= folders or {}
    modes.pop(".", None)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(modes):
            tar.addfile(_entry(f"{prefix}{name}", tarfile.DIRTYPE, modes[name]))
        for name in sorted(files):
            data = files[name].read()
            entry = _entry(f"{prefix}{name}", tarfile.REGTYPE, 0o755 if files[name].executable else 0o644)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, DATE
    entry.uname = entry.gname = "root"
    return entry
