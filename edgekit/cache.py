"""Results of finished stages, kept by content, so that an interrupted or repeated build goes on where it was.

An entry is a folder named by the digest of everything that determines it: inputs, step, parameters, library
versions. It appears by one rename when it is complete, and its files are checked again when it is read.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import OutsideFailure

MOST_BYTES = 5_000_000_000
_SEAL, _PARTIAL = "seal.json", ".partial-"
_ABANDONED_S = 24 * 3600
DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EFBIG, errno.EIO,
}  # fmt: skip


def default_root() -> Path:
    """The user's cache folder; EDGEKIT_CACHE names another."""
    if named := os.environ.get("EDGEKIT_CACHE"):
        return Path(named) / "stages"
    from platformdirs import user_cache_path

    return Path(user_cache_path("edgekit")) / "stages"


class Cache:
    """Finished stages under `root`; with `root` None nothing is looked up and nothing is kept.

    Attributes:
        reused: titles of the stages that were found, in order.
        in_use: entries that were found or made, which are not dropped while they may be read.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.reused: list[str] = []
        self.in_use: set[Path] = set()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def find(self, title: str, key: Mapping[str, Any]) -> Path | None:
        """The folder of a finished stage's files; None when it is not in the cache.

        Args:
            title: what the user calls the stage.
            key: everything that determines the result, as JSON data.
        """
        entry = self._entry(title, key)
        if not _is_sealed(entry):
            return None
        with contextlib.suppress(OSError):  # a cache that may only be read is of use too
            os.utime(entry)
        self.reused.append(title)
        self.in_use.add(entry)
        return entry

    def make(self, title: str, key: Mapping[str, Any], fill: Callable[[Path], None]) -> Path:
        """The folder of the stage's files, filled by `fill` now; whole or not there at all.

        Raises:
            OutsideFailure: the disk is full or the folder cannot be written.
        """
        entry, root = self._entry(title, key), self._root()
        with disk_trouble(root):
            root.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=root))
            try:
                fill(partial)
                _seal(partial)
                _put(partial, entry)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        self.in_use.add(entry)
        _evict(root, keep=self.in_use)
        return entry

    def unfinished(self, title: str, key: Mapping[str, Any]) -> Path | None:
        """A folder for what a stage has so far, which outlives a build that is killed; None without a cache.

        It need not exist; the stage removes it when it has finished, and abandoned ones are dropped in time.
        """
        if self.root is None:
            return None
        return self.root / f"{_PARTIAL}{self._entry(title, key).name}"

    def _entry(self, title: str, key: Mapping[str, Any]) -> Path:
        return self._root() / digest_of({"stage": title, "code": _code_digest(), **key})

    def _root(self) -> Path:
        if self.root is not None:
            return self.root
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="edgekit-")
        return Path(self._scratch.name)


def _put(partial: Path, entry: Path) -> None:
    """Let the entry appear, in place of a damaged one; another build may have made the same one meanwhile."""
    if _is_sealed(entry):
        return
    shutil.rmtree(entry, ignore_errors=True)
    try:
        partial.rename(entry)
    except OSError:
        if not _is_sealed(entry):
            raise


@contextlib.contextmanager
def disk_trouble(root: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line; other errors are not the disk's and pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise OutsideFailure(
            f"cannot be written: {error.strerror}",
            where=f"the cache {root}",
            todo="free some space, or set EDGEKIT_CACHE to another folder",
        ) from error


@functools.cache
def _code_digest() -> str:
    """SHA-256 over edgekit's own source: what an older edgekit made is not what this one makes."""
    package = Path(__file__).parent
    sources = sorted(package.rglob("*.py"))
    return digest_of({str(path.relative_to(package)): digest_file(path) for path in sources})


def digest_of(data: Any) -> str:
    """SHA-256 of JSON data, keys sorted."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(folder: Path) -> None:
    digests = {path.name: digest_file(path) for path in sorted(folder.iterdir())}
    (folder / _SEAL).write_text(json.dumps(digests))


def _is_sealed(folder: Path) -> bool:
    """Whether the entry is complete and its files are what they were."""
    try:
        digests = json.loads((folder / _SEAL).read_text())
        return all(digest_file(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _evict(root: Path, keep: Container[Path]) -> None:
    """Drop the entries that were used longest ago until the rest fits, and what killed builds left."""
    entries, total = [], 0
    for folder in root.iterdir():
        with contextlib.suppress(OSError):  # another build may be dropping it
            used = folder.stat().st_mtime
            if folder.name.startswith(_PARTIAL) and time.time() - used > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)
            elif (folder / _SEAL).is_file():
                entries.append((used, sum(file.stat().st_size for file in folder.iterdir()), folder))
    for _, size, entry in sorted(entries, reverse=True):
        total += size
        if total > MOST_BYTES and entry not in keep:
            shutil.rmtree(entry, ignore_errors=True)
