"""What is known of a run that goes on apart from any connection: its processes, its files, its locks.

A part of `detached.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from typing import Any, Dict, Iterator, List, Optional, Set

MARK = "EDGEKIT_RUN"  # in the environment of all that belongs to a run: whose it is
GRACE_SECONDS = 5.0  # from SIGTERM to SIGKILL
PIECE = 1 << 15


class Refused(Exception):
    """`what is wrong; what to do`."""


def end_all(name: str, session: Optional[int] = None) -> None:
    """End the processes of a run, and wait until there is none; first by SIGTERM, then by SIGKILL.

    Args:
        name: the run's ID.
        session: of a command that is not reaped yet; what cleared its environment is found by it.
    """
    told: Set[int] = set()
    begun = time.monotonic()
    while True:
        left = members(name, session)
        if not left:
            return
        waited = time.monotonic() - begun
        if waited > 2 * GRACE_SECONDS:
            raise Refused(f"process {left[0]} of run {name} cannot be ended; restart the device")
        for pid in left:
            if waited > GRACE_SECONDS or pid not in told:
                send(pid, signal.SIGKILL if waited > GRACE_SECONDS else signal.SIGTERM)
                told.add(pid)
        time.sleep(0.02)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone or another user's."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def members(name: str, session: Optional[int]) -> List[int]:
    """The processes that belong to a run and still run."""
    mark = f"{MARK}={name}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                state, _, _, its_session = file.read().rpartition(")")[2].split()[:4]
            with open(f"/proc/{entry}/environ", "rb") as file:
                is_marked = mark in file.read().split(b"\0")
        except OSError:
            continue  # gone, or another user's
        if state not in "ZX" and (is_marked or int(its_session) == session):
            found.append(int(entry))
    return found


def locked(folder: str, name: str) -> int:
    """A file's lock, once it is free; lasts until the descriptor is closed in all processes that have it."""
    descriptor = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def is_alive(folder: str) -> bool:
    """Whether the run has a supervisor. The lock of a process ends with it, however it ended."""
    try:
        descriptor = os.open(os.path.join(folder, "alive"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def boot_mark() -> str:
    """A word that changes when the device is started again, or the container that it is."""
    words = []
    for path, field in (("/proc/sys/kernel/random/boot_id", 0), ("/proc/1/stat", 19)):
        try:
            with open(path, encoding="utf-8") as file:
                words.append(file.read().rpartition(")")[2].split()[field])
        except OSError:
            words.append("")
    return " ".join(words)


def kills_for_memory() -> int:
    """How many processes the kernel has ended for lack of memory since the boot; 0 where it does not tell."""
    try:
        with open("/proc/vmstat", encoding="utf-8") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    except OSError:
        return 0


def free_bytes(folder: str) -> int:
    """That this user may still fill on the disk of a folder."""
    disk = os.statvfs(folder)
    return (disk.f_bavail if os.geteuid() else disk.f_bfree) * disk.f_frsize


def write_whole(folder: str, name: str, record: Dict[str, Any]) -> None:
    """Write JSON that appears whole; in place of the part that is there, so that it needs no room."""
    part = os.path.join(folder, name.replace(".json", ".part"))
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(record).encode())
        file.truncate()
        file.flush()
        os.fsync(descriptor)
    os.replace(part, os.path.join(folder, name))


def has(folder: str, name: str) -> bool:
    """Whether a file is there."""
    return os.path.exists(os.path.join(folder, name))


def read(folder: str, name: str) -> Optional[Dict[str, Any]]:
    """A file of JSON; None where it is not there."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            record: Dict[str, Any] = json.load(file)
            return record
    except FileNotFoundError:
        return None


def pieces(folder: str, name: str, offset: int) -> Iterator[bytes]:
    """A file from a byte on, in pieces; nothing where it is not there."""
    with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, name), "rb") as file:
        file.seek(offset)
        yield from iter(lambda: file.read(PIECE), b"")
