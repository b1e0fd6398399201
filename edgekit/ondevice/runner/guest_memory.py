"""The memory of a program that a user-mode emulator runs, without the emulator's own.

The kernel counts both together: QEMU keeps its own program and the code that it translated in the same
process. Which pages are whose shows at a standstill: QEMU 7.2 lists the program's addresses alone in
/proc/self/maps, and all of them in /proc/self/smaps. A peak between two such readings is bounded from both
sides, because the emulator only grows: what was the emulator's at the peak of both lies between what was
before it and after it.

What it misses: a peak before the first reading, while the emulator was smaller; and pages of the emulator's
own program that the kernel took back for lack of memory.
"""

from __future__ import annotations

import bisect
import os
import platform
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

HOW = (
    "the emulated program's own, at most: the peak of it and the emulator together, less what was the "
    "emulator's before that peak"
)
HOW_TOGETHER = "of the program and the emulator together, which this emulator does not tell apart"
Reading = Dict[str, float]
Ranges = List[Tuple[int, int]]
_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")


class Watch:
    """Readings of a process between which it works; nothing is read, or told, where no emulator runs it.

    Args:
        facts: the part of the runner that reads the system.
    """

    def __init__(self, facts: Any) -> None:
        cpuinfo, program = facts.read("/proc/cpuinfo") or "", facts._own_program()
        emulated = facts.emulation(platform.machine(), cpuinfo, program, dict(os.environ)) is not None
        self._facts, self._emulated = facts, emulated
        self._readings: List[Reading] = []
        if emulated:
            reading(facts)  # so that the emulator has translated what reads

    def read(self) -> None:
        """Take a reading."""
        found = reading(self._facts) if self._emulated else None
        if found:
            self._readings.append(found)

    def figures(self) -> Dict[str, Any]:
        """What is to be told of memory where an emulator runs the process, MB of 10^6 bytes; else nothing.

        The first reading must have been taken before the load.
        """
        if not self._emulated:
            return {}
        if not self._readings:
            return {
                "at_least_rss_mb": None,
                "peak_with_emulator_mb": self._facts.peak_rss_mb(),
                "how": HOW_TOGETHER,
            }
        low, high = bounds(self._readings)
        return {
            "before_load_rss_mb": self._readings[0]["guest"],
            "peak_rss_mb": high,
            "at_least_rss_mb": low,
            "peak_with_emulator_mb": self._readings[-1]["peak"],
            "how": HOW,
        }


def reading(facts: Any) -> Optional[Reading]:
    """Memory now, MB of 10^6 bytes: `guest`, `emulator`, and the `peak` of both together so far.

    Args:
        facts: the part of the runner that reads the system.

    Returns:
        None where the system does not tell them apart: another emulator, or one for 32 bits.
    """
    peak = facts.rss_mb("VmHWM")
    maps, smaps = _lines("/proc/self/maps"), _lines("/proc/self/smaps")
    if peak is None or maps is None or smaps is None:
        return None
    own, resident = ranges(maps), resident_kb(smaps)
    if not any(start <= id(facts) < end and kb for (start, end), kb in resident):
        return None  # where this very object lies is not in memory: these are not the program's addresses
    starts = [start for start, _ in own]
    guest = sum(kb for place, kb in resident if _meets(own, starts, place))
    both = sum(kb for _, kb in resident)
    unit = 1024 / 1e6
    return {"guest": guest * unit, "emulator": (both - guest) * unit, "peak": peak}


def bounds(readings: Sequence[Reading]) -> Tuple[float, float]:
    """Between what the peak of the program's own memory lies, MB.

    Args:
        readings: in their order, one at least.
    """
    first = readings[0]
    low = high = max(first["guest"], first["peak"] - first["emulator"])
    for number, after in enumerate(readings[1:]):
        before = readings[number]
        low, high = max(low, after["guest"]), max(high, after["guest"])
        if after["peak"] > before["peak"]:
            low = max(low, after["peak"] - after["emulator"])
            high = max(high, after["peak"] - before["emulator"])
    return low, high


def ranges(maps: Sequence[str]) -> Ranges:
    """The address ranges of /proc/self/maps, sorted."""
    found = (_LINE.match(line) for line in maps)
    return sorted((int(one.group(1), 16), int(one.group(2), 16)) for one in found if one)


def resident_kb(smaps: Sequence[str]) -> List[Tuple[Tuple[int, int], int]]:
    """The address ranges of /proc/self/smaps with the kB of each that are in memory."""
    found: List[Tuple[Tuple[int, int], int]] = []
    place = (0, 0)
    for line in smaps:
        start = _LINE.match(line)
        if start:
            place = (int(start.group(1), 16), int(start.group(2), 16))
        elif line.startswith("Rss:"):
            found.append((place, int(line.split()[1])))
    return found


def _meets(own: Ranges, starts: List[int], place: Tuple[int, int]) -> bool:
    """Whether a range has an address in common with one of the program's, which do not overlap."""
    last = bisect.bisect_left(starts, place[1]) - 1  # the last one that starts before its end
    return last >= 0 and own[last][1] > place[0]


def _lines(path: str) -> Optional[List[str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readlines()
    except OSError:
        return None
