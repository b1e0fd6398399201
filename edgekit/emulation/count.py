"""Executed instructions of an emulated program: the QEMU that counts them, and what its readings say.

A count is exact and the same each time, which no time under emulation is; it is not a time either.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.cache import disk_trouble
from edgekit.emulation.board import cache_folder, folder
from edgekit.errors import OutsideFailure

SCHEMA = "edgekit.count/1"
WHAT_IT_IS = "executed instructions of the emulated core, not time"
PLACE = "/opt/edgekit-count"  # of the QEMU, in the container
SOURCES = ("count.c", "debian.py", "qemu.py")
CLASSES = ("load", "store", "branch", "integer", "simd_fp", "other")  # each instruction is in one of them
AMONG_SIMD_FP = ("fma", "dot", "widening")
BYTES = ("load_bytes", "store_bytes")
COUNTERS = ("instructions", *CLASSES, *AMONG_SIMD_FP, *BYTES)
PREFIX = "edgekit-count "  # of a reading, on standard error
ALONE = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SECONDS = 600
Detail = Callable[[str], None]
Reading = dict[str, int]


def counting_qemu(detail: Detail) -> Path:
    """The folder of the QEMU that counts, which is made where it is not there: for `open_container`'s mounts.

    Raises:
        OutsideFailure: this is no x86-64 Linux, there is no compiler, or Debian's packages cannot be fetched.
    """
    content = b"".join((folder() / name).read_bytes() for name in SOURCES)
    place = cache_folder() / "qemu" / hashlib.sha256(content).hexdigest()[:12]
    if not place.is_dir():
        detail("making the QEMU that counts instructions")
        with disk_trouble(cache_folder()):
            _make(place)
    return place


def _make(place: Path) -> None:
    command = [sys.executable, str(folder() / "qemu.py"), "-o", str(place)]
    command += ["--cache", str(cache_folder() / "debian")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        what = f"the QEMU that counts instructions was not made in {SECONDS} s"
        raise OutsideFailure(what, todo="try again") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        what, _, todo = (lines[-1] if lines else "no message").removeprefix("error: ").partition("; ")
        raise OutsideFailure(what, where="the QEMU that counts instructions", todo=todo or None)


def counted(command: Sequence[str], place: str = PLACE) -> list[str]:
    """The command that runs another one, whose program is one for arm64, by the QEMU that counts.

    Args:
        command: the program's path, and its arguments. Processes that it starts are not counted.
        place: of the QEMU, where the command will run.
    """
    own = [f"{place}/ld-linux-x86-64.so.2", "--library-path", place, f"{place}/qemu-aarch64"]
    own += [word for name, value in ALONE.items() for word in ("-E", f"{name}={value}")]
    return [*own, "-plugin", f"{place}/count.so", *command]


def parse_reading(line: str) -> tuple[int, Reading] | None:
    """The mark of a reading, and its counters; None for a line that is no reading."""
    if not line.startswith(PREFIX):
        return None
    try:
        found = json.loads(line.removeprefix(PREFIX))
        return int(found["mark"]), {name: int(found[name]) for name in ("calling", *COUNTERS)}
    except (ValueError, KeyError, TypeError):
        return None


def record_of(ran: Mapping[str, Any], readings: Mapping[int, Reading], qemu: Path) -> dict[str, Any]:
    """What was counted, as plain data of schema "edgekit.count/1".

    Args:
        ran: what `run.py --count` printed.
        readings: by their marks: 2 k before the inference k, 2 k + 1 after it.
        qemu: the folder of the QEMU that counted.

    Raises:
        OutsideFailure: a reading is missing.
    """
    inferences = [_between(readings, 2 * number) for number in range(ran["inferences"])]
    totals = [one["instructions"] for one in inferences]
    median = sorted(inferences, key=lambda one: one["instructions"])[len(inferences) // 2]
    version = (qemu / "packages").read_text().split()[1]
    return {
        "schema": SCHEMA,
        "what_it_is": WHAT_IT_IS,
        "bundle": ran["bundle"],
        "runtime": ran["runtime"],
        "threads": ran["threads"],
        "inferences": ran["inferences"],
        "per_inference": {name: median[name] for name in COUNTERS},
        "outside_the_calling_thread": median["instructions"] - median["calling"],
        "spread": (max(totals) - min(totals)) / median["instructions"],
        "instructions_of_each": totals,
        "emulator": f"qemu-user {version}",
        "plugin_sha256": hashlib.sha256((folder() / "count.c").read_bytes()).hexdigest(),
        "facts": ran["facts"],
    }


def _between(readings: Mapping[int, Reading], mark: int) -> Reading:
    try:
        before, after = readings[mark], readings[mark + 1]
    except KeyError as error:
        raise OutsideFailure(f"the emulator gave no reading {error}", todo="count again") from error
    return {name: after[name] - before[name] for name in after}
