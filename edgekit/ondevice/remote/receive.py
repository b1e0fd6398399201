"""Take files over standard input into edgekit's folder, and clear away what nothing needs any more.

`receive`: the first line of standard input is a JSON object: `root`, `folder`, `token` and `files`, a list
of `sha256`, `size`, `name`, `executable`. One line of JSON answers: `parts`, by SHA-256 the bytes that are
there of each file that is not there whole. The rest of standard input is what is missing of those, one after
the other. Each goes into ROOT/store/SHA256.part as it arrives, becomes ROOT/store/SHA256 when its digest is
right, and when all are there they appear in ROOT/FOLDER as hard links, or copies where links fail. The last
line of standard output says how many bytes arrived, and `damaged`: those to be sent once more.

`sweep ROOT DAYS`: remove files of the store that nothing links to, and parts, older than that.

Two may send the same file at once: the second one writes into a part of its own. A connection that broke may
leave its receiver waiting: one with the same token ends it and goes on with its parts. When the disk is full
the parts go, so that the device can breathe; in all other failures they stay, for the next sender to go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any, BinaryIO, Callable, Dict, List, Sequence, Set, Tuple

BAD_INPUT, OUTSIDE = 2, 4
PIECE = 1 << 20
FLUSH = 8 << 20  # after so many bytes the kernel is asked to begin writing them to the disk
SILENCE_S = 300.0  # a sender that says nothing for so long is gone
SPARE = 1 << 20  # bytes left free, and a block for each file
BLOCK = 4096
F_SETPIPE_SZ = 1031  # Linux; in Python's own `fcntl` from 3.10
STALE_DAYS = 7.0  # parts that nobody went on with

Detail = Callable[[str], None]


class Refused(Exception):
    """One line for the user, and the exit status of the program."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


def main(arguments: Sequence[str]) -> int:
    """The program; returns its exit status."""
    try:
        if arguments and arguments[0] == "sweep":
            answer: Dict[str, Any] = {"removed": sweep(arguments[1], float(arguments[2]))}
        else:
            answer = receive(sys.stdin.buffer, _print_line)
        print(json.dumps(answer), flush=True)
        return 0
    except Refused as error:
        print(f"receive: {' '.join(str(error).split())}", file=sys.stderr)
        return error.status
    except OSError as error:
        what = f"{error.filename or 'a file'} cannot be written: {error.strerror}; look at its folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk is full; free some space there"
        print(f"receive: {what}", file=sys.stderr)
        return OUTSIDE


def receive(stream: BinaryIO, say: Callable[[Dict[str, Any]], None]) -> Dict[str, Any]:
    """Take the files of one sender; see the top of this file.

    Raises:
        Refused: a name leads elsewhere, there is no room, or the sender is gone.
        OSError: the disk is full, or cannot be written.
    """
    alive = Alive()
    with contextlib.suppress(OSError):  # a third less CPU time than with the usual 64 KB
        fcntl.fcntl(stream.fileno(), F_SETPIPE_SZ, PIECE)
    request = json.loads(stream.readline().decode("utf-8"))
    root, files = request["root"], request["files"]
    targets = [confined(root, request["folder"], file["name"]) for file in files]
    store = os.path.join(root, "store")
    os.makedirs(store, exist_ok=True)
    lock = take_over(store, request["token"])
    try:
        remove_stale(store, STALE_DAYS)
        wanted = missing(store, files, alive)
        parts = [Part(store, digest, size) for digest, size in wanted]
        try:
            refuse_without_room(root, parts, files)
            say({"parts": {part.digest: part.held for part in parts}})
            arrived = sum(part.fill(stream, alive) for part in parts)
            damaged = keep(store, parts, alive)
        except OSError:
            for part in parts:
                part.remove()  # so that the device can breathe
            raise
        finally:
            for part in parts:
                part.close()
        if not damaged:
            place(store, files, targets)
    finally:
        release(store, request["token"], lock)
    return {"arrived": arrived, "damaged": damaged}


class Alive:
    """Tells the sender that work goes on, and ends the process when the sender says nothing any more."""

    def __init__(self) -> None:
        self.heard = time.monotonic()
        self.doing = ""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        beats = 0
        while True:
            time.sleep(1.0)
            beats += 1
            if self.doing:
                self.heard = time.monotonic()
                if beats % 5 == 0:
                    print(self.doing, file=sys.stderr, flush=True)
            elif time.monotonic() - self.heard > SILENCE_S:
                os._exit(OUTSIDE)


def confined(root: str, folder: str, name: str) -> str:
    """The path of a file below the folder below root.

    Raises:
        Refused: it would be somewhere else, by its name or by a link on the way.
    """
    for text in (folder, name):
        steps = text.split("/")
        if any(step in ("", ".", "..") for step in steps) or "\\" in text or not text.isprintable():
            raise Refused(
                "`%s` is no name of a file below edgekit's folder; pack the bundle again" % text, BAD_INPUT
            )
    path = os.path.join(root, folder, name)
    real, base = os.path.realpath(os.path.dirname(path)), os.path.realpath(root)
    if real != base and not real.startswith(base + os.sep):
        raise Refused("%s leads out of %s by a link; remove the link" % (path, root), BAD_INPUT)
    return path


def take_over(store: str, token: str) -> int:
    """A lock that says who receives for this sender; whoever held it for the same one is ended."""
    if not token.isalnum():
        raise Refused("the sender has no token", BAD_INPUT)
    descriptor = os.open(os.path.join(store, "sender-" + token), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 20, 0)
        if holder.isdigit():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(holder), signal.SIGKILL)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def release(store: str, token: str, descriptor: int) -> None:
    """Remove the lock."""
    os.unlink(os.path.join(store, "sender-" + token))
    os.close(descriptor)


def missing(store: str, files: List[Dict[str, Any]], alive: Alive) -> List[Tuple[str, int]]:
    """Digest and size of the files that are not whole in the store; a damaged one is removed."""
    wanted: Dict[str, int] = {}
    seen: Set[str] = set()
    there = set(os.listdir(store))
    for file in files:
        digest, size = file["sha256"], file["size"]
        if len(digest) != 64 or not digest.isalnum() or not isinstance(size, int) or size < 0:
            raise Refused("the sender's list is none", BAD_INPUT)
        if digest in seen:
            continue
        seen.add(digest)
        path = os.path.join(store, digest)
        alive.doing = "checking what is there"
        if digest in there and is_whole(path, digest, size):
            os.utime(path)  # in use, for `sweep`
        else:
            _unlink(path)
            wanted[digest] = size
    alive.doing = ""
    return list(wanted.items())


def is_whole(path: str, digest: str, size: int) -> bool:
    """Whether a file is there and has this size and digest."""
    try:
        if os.path.islink(path) or os.path.getsize(path) != size:
            return False
        with open(path, "rb") as file:
            return bool(hash_of(file).hexdigest() == digest)
    except OSError:
        return False


def hash_of(file: BinaryIO) -> Any:
    """The SHA-256 of a file from its beginning."""
    found = hashlib.sha256()
    while True:
        piece = file.read(PIECE)
        if not piece:
            return found
        found.update(piece)


class Part:
    """What has arrived of a file.

    Attributes:
        held: bytes that were there when it was opened.
    """

    def __init__(self, store: str, digest: str, size: int) -> None:
        self.digest, self.size = digest, size
        self.path = os.path.join(store, digest + ".part")
        self.is_damaged = False
        self._file = -1
        if not self._open():
            self.path = os.path.join(store, "%s.%d.part" % (digest, os.getpid()))
            self._open()
        self.held = os.fstat(self._file).st_size
        if self.held > size:
            os.ftruncate(self._file, 0)
            self.held = 0

    def _open(self) -> bool:
        """Open it, unless another sender writes to it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._file = descriptor
        return True

    def fill(self, stream: BinaryIO, alive: Alive) -> int:
        """Take the rest of it from the stream, and check it; how many bytes that were.

        Raises:
            Refused: the stream ends before.
        """
        found = hashlib.sha256()
        if self.held:
            alive.doing = "checking what is there"
            with open(self._file, "rb", closefd=False) as file:
                found = hash_of(file)
            alive.doing = ""
        at = flushed = self.held
        buffer = memoryview(
            bytearray(min(PIECE, self.size - at))
        )  # one for all: a new one for each costs more
        while at < self.size:
            number = stream.readinto1(buffer[: self.size - at])  # type: ignore[attr-defined]
            if not number:
                raise Refused("the sender is gone; send again", OUTSIDE)
            alive.heard = time.monotonic()
            found.update(buffer[:number])
            write_all(self._file, buffer[:number])
            at += number
            if at - flushed >= FLUSH:
                os.posix_fadvise(self._file, flushed, at - flushed, os.POSIX_FADV_DONTNEED)
                flushed = at
        self.is_damaged = found.hexdigest() != self.digest
        return self.size - self.held

    def keep(self, store: str) -> None:
        """Make it a file of the store, which nobody is to change: links share its content."""
        os.chmod(self._file, 0o444)
        os.replace(self.path, os.path.join(store, self.digest))

    def remove(self) -> None:
        """Remove what has arrived."""
        _unlink(self.path)

    def close(self) -> None:
        """Let others write to it."""
        os.close(self._file)


def write_all(descriptor: int, rest: memoryview) -> None:
    """Write all of it."""
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def refuse_without_room(root: str, parts: List[Part], files: List[Dict[str, Any]]) -> None:
    """Raise Refused where the disk cannot hold what is missing; nothing was sent yet."""
    copies = sum(file["size"] for file in files if file["executable"])
    needed = sum(part.size - part.held + BLOCK for part in parts) + copies + SPARE
    disk = os.statvfs(root)
    free = disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)
    if needed <= free:
        return
    for part in parts:
        if part.held == 0:
            part.remove()
    raise Refused(
        "%s has no room: %.1f MB are needed and %.1f MB are free; free some space there"
        % (root, needed / 1e6, free / 1e6),
        OUTSIDE,
    )


def keep(store: str, parts: List[Part], alive: Alive) -> List[str]:
    """Make the parts files of the store, safe from a loss of power; the digests of those that are wrong."""
    alive.doing = "writing to the disk"
    if parts:
        flush(store)
    for part in parts:
        if part.is_damaged:
            part.remove()
        else:
            part.keep(store)
    alive.doing = ""
    return [part.digest for part in parts if part.is_damaged]


def flush(folder: str) -> None:
    """Have all of this file system written to the disk: for many files much faster than each by itself."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    except AttributeError:
        os.sync()
    finally:
        os.close(descriptor)


def place(store: str, files: List[Dict[str, Any]], targets: List[str]) -> None:
    """Make the files appear where they belong, each at once or not at all."""
    folders: Set[str] = {store}
    for file, target in zip(files, targets):  # noqa: B905 - Python 3.8
        folder = os.path.dirname(target)
        if folder not in folders:
            os.makedirs(folder, exist_ok=True)
            folders.add(folder)
        link(os.path.join(store, file["sha256"]), target, file["executable"])
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link(source: str, target: str, executable: bool) -> None:
    """A hard link, or a copy: of an executable, as all links share the mode, and where links fail."""
    if not executable:
        try:
            os.link(source, target)
            return
        except FileExistsError:
            if os.path.exists(target) and os.path.samefile(source, target):
                return
        except OSError:
            pass  # no links on this file system
    half = "%s.%d.half" % (target, os.getpid())
    try:
        if executable or not _linked(source, half):
            shutil.copyfile(source, half)
            os.chmod(half, 0o555 if executable else 0o444)
            with open(half, "rb") as file:
                os.fsync(file.fileno())
        os.replace(half, target)
    finally:
        _unlink(half)


def _linked(source: str, target: str) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def remove_stale(store: str, days: float) -> None:
    """Remove parts, and marks of senders, that were left so many days ago."""
    for name in os.listdir(store):
        if name.endswith(".part") or name.startswith("sender-"):
            path = os.path.join(store, name)
            if _age_days(path) > days:
                _unlink(path)


def sweep(root: str, days: float) -> int:
    """Remove from the store what nothing links to, older than so many days; how many files that were.

    Where links fail, nothing links to any file: those that were sent lately stay.
    """
    store = os.path.join(root, "store")
    if not os.path.isdir(store):
        return 0
    remove_stale(store, days)
    removed = 0
    for name in os.listdir(store):
        path = os.path.join(store, name)
        if len(name) == 64 and _age_days(path) >= days and os.lstat(path).st_nlink == 1:
            _unlink(path)
            removed += 1
    return removed


def _age_days(path: str) -> float:
    try:
        return (time.time() - os.lstat(path).st_mtime) / 86400
    except FileNotFoundError:
        return -1.0


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _print_line(answer: Dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
