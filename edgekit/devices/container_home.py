"""The folders of this machine that a container may write to, and what killed runs of edgekit left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.cache import disk_trouble
from edgekit.emulation.board import cache_folder

USER = 1000  # nobody in particular, where edgekit itself is root
LABEL = "edgekit.folder"


@dataclass(frozen=True, kw_only=True)
class Home:
    """Folders of one container, which are its own as long as the lock is held.

    Attributes:
        folder: holds the others; only its owner may enter it.
        uid, gid: the user of the container.
        lock: file descriptor of a lock that the kernel gives up when edgekit ends in any way.
    """

    folder: Path
    uid: int
    gid: int
    lock: int

    @property
    def writable(self) -> Path:
        """The user's folder there."""
        return self.folder / "home"

    @property
    def scratch(self) -> Path:
        """Its /tmp."""
        return self.folder / "tmp"

    @property
    def meminfo(self) -> Path:
        """Its /proc/meminfo."""
        return self.folder / "meminfo"

    @property
    def label(self) -> dict[str, str]:
        """Marks the container whose folder this is."""
        return {LABEL: str(self.folder)}

    def cpus(self, wanted: int) -> str:
        """The processors of this machine that the container may use, "0-3"; empty for all."""
        usable = sorted(os.sched_getaffinity(0))
        return "" if wanted >= len(usable) else ",".join(map(str, usable[:wanted]))

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self.lock)


def make_home(meminfo: str) -> Home:
    """New folders in the user's cache: on a disk, because memory is what is limited.

    Raises:
        OutsideFailure: the disk does not take them.
    """
    root = _root()
    with disk_trouble(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=root))
        lock = os.open(folder / "new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "new").rename(folder / "lock")  # never seen unlocked while its owner lives
        is_root = os.getuid() == 0
        home = Home(
            folder=folder,
            uid=USER if is_root else os.getuid(),
            gid=USER if is_root else os.getgid(),
            lock=lock,
        )
        home.meminfo.write_text(meminfo)
        for path in (home.writable, home.scratch):
            path.mkdir(mode=0o755)
            if is_root:
                os.chown(path, home.uid, home.gid)
        home.scratch.chmod(0o1777)
    return home


def sweep(client: Any) -> None:
    """Remove containers and folders whose edgekit was killed."""
    from docker.errors import APIError

    for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
        if _is_free(Path(container.labels[LABEL])):
            with contextlib.suppress(APIError):
                container.remove(force=True, v=True)
    for folder in _folders():
        if _is_free(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _folders() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from list(_root().iterdir())


def _is_free(folder: Path) -> bool:
    """Whether the edgekit that made it has ended: the kernel gave up its lock."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return not _is_new(folder)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _is_new(folder: Path) -> bool:
    """Whether it may have been made a moment ago and has no lock yet."""
    try:
        return time.time() - folder.stat().st_mtime < 60
    except OSError:
        return False


def _root() -> Path:
    return cache_folder() / "containers"
