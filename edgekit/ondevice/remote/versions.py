"""The versions of one service on a device, and the links that say which of them is in service.

    FOLDER/versions/DIGEST12/{bundle,venv,ready}    `ready` is written last: one without it is half-done
    FOLDER/current -> versions/DIGEST12             what is in service
    FOLDER/previous -> versions/DIGEST12            what `--rollback` goes back to
    FOLDER/trial -> versions/DIGEST12               what to go back to while `current` is not yet proven

Each change is one rename, and what it relies on is on the disk before: wherever the power goes, `current`
leads to a version that is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, Dict, List, Optional

CURRENT, PREVIOUS, TRIAL, READY = "current", "previous", "trial", "ready"


def place(folder: str, version: str) -> str:
    """Where a version lies."""
    return os.path.join(folder, "versions", version)


def linked(folder: str, link: str) -> Optional[str]:
    """The version that a link leads to; None where there is no such link."""
    try:
        return os.path.basename(os.readlink(os.path.join(folder, link)))
    except OSError:
        return None


def mark(folder: str, version: str) -> Optional[Dict[str, Any]]:
    """What is written in a version's mark; None where it is half-done."""
    try:
        with open(os.path.join(place(folder, version), READY), encoding="utf-8") as file:
            written = json.load(file)
    except (OSError, ValueError):
        return None
    return written if isinstance(written, dict) else None


def finish(folder: str, version: str, written: Dict[str, Any]) -> None:
    """Mark a version as whole, once all of it is on the disk."""
    os.sync()
    write(os.path.join(place(folder, version), READY), json.dumps(written) + "\n")


def begin_trial(folder: str, version: str) -> None:
    """Put a version into service for the time being; unless it is confirmed, the one before comes back."""
    before = linked(folder, CURRENT)
    if before:
        _link(folder, TRIAL, before)
    _link(folder, CURRENT, version)


def confirm(folder: str) -> None:
    """What is on trial stays; what was before becomes the previous one."""
    if linked(folder, TRIAL):
        _rename(folder, TRIAL, PREVIOUS)


def take_back(folder: str) -> Optional[str]:
    """End a trial: what was before is in service again, which is returned; None where nothing is on trial."""
    before = linked(folder, TRIAL)
    if before:
        _rename(folder, TRIAL, CURRENT)
    return before


def withdraw(folder: str) -> None:
    """Take the first version, before which there was none, out of service."""
    remove(os.path.join(folder, CURRENT))


def discard(folder: str, version: str) -> None:
    """Remove a version that no link leads to; its mark goes first, so that what stays counts as half-done."""
    if version in [linked(folder, link) for link in (CURRENT, PREVIOUS, TRIAL)]:
        return
    remove(os.path.join(place(folder, version), READY))
    shutil.rmtree(place(folder, version), ignore_errors=True)


def discard_half_done(folder: str) -> List[str]:
    """Remove what an interrupted deployment left; returns those versions."""
    half = [version for version in names(folder) if mark(folder, version) is None]
    for version in half:
        discard(folder, version)
    return half


def prune(folder: str, keep: int) -> List[str]:
    """Remove the oldest whole versions until `keep` are left, never a linked one; returns those removed."""
    marks = {version: mark(folder, version) for version in names(folder)}
    oldest_first = sorted(
        (version for version, written in marks.items() if written),
        key=lambda version: float((marks[version] or {}).get("when", 0)),
    )
    linked_to = {linked(folder, link) for link in (CURRENT, PREVIOUS, TRIAL)}
    loose = [version for version in oldest_first if version not in linked_to]
    removed = loose[: max(0, len(oldest_first) - keep)]
    for version in removed:
        discard(folder, version)
    return removed


def names(folder: str) -> List[str]:
    """All versions that lie there, half-done ones included."""
    try:
        return sorted(os.listdir(os.path.join(folder, "versions")))
    except OSError:
        return []


def size_mb(path: str) -> float:
    """What the files below a folder take, MB; a file with several names counts once."""
    seen = {}
    for folder, _, files in os.walk(path):
        for name in files:
            status = os.lstat(os.path.join(folder, name))
            seen[(status.st_dev, status.st_ino)] = status.st_size
    return sum(seen.values()) / 1e6


def write(path: str, text: str) -> None:
    """Write a small file whole, onto the disk."""
    half = f"{path}.half"
    try:
        with open(half, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, path)
    except OSError:
        remove(half)
        raise
    settle(os.path.dirname(path))


def remove(path: str) -> None:
    """Remove a file or link, if it is there, from the disk."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    settle(os.path.dirname(path))


def settle(folder: str) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(folder: str, link: str, version: str) -> None:
    half = f".{link}.half"
    remove(os.path.join(folder, half))
    os.symlink(os.path.join("versions", version), os.path.join(folder, half))
    _rename(folder, half, link)


def _rename(folder: str, old: str, new: str) -> None:
    os.replace(os.path.join(folder, old), os.path.join(folder, new))
    settle(folder)
