"""The timing protocol: warm up until steady, then time one call after the other.

Single stream: the next call starts when the last has ended. Only the call itself is between the two clock
readings. The method follows MLPerf Inference, edge single-stream.
"""

from __future__ import annotations

import array
import collections
import itertools
import random
import statistics
import time
from typing import Any, Callable, Sequence

# A run ends when it has `enough_runs` and `min_seconds`, or `least_runs` and `max_seconds`.
PROTOCOLS = {
    "quick": {"least_runs": 100, "enough_runs": 1024, "min_seconds": 2.0, "max_seconds": 10.0},
    "standard": {"least_runs": 1024, "enough_runs": 1024, "min_seconds": 60.0, "max_seconds": 60.0},
    "strict": {"least_runs": 1024, "enough_runs": 1024, "min_seconds": 600.0, "max_seconds": 600.0},
}
WARM_UP = {"least_runs": 10, "min_seconds": 2.0, "max_seconds": 15.0, "steady_change": 0.02}
MOST_SAMPLES = 65_536
TICK_SECONDS = 0.5

Call = Callable[[Any], Any]
Tick = Callable[[str, int, float], None]


def warm_up(
    call: Call, feeds: Sequence[Any], tick: Tick, limits: dict[str, float] | None = None
) -> dict[str, Any]:
    """Call until the time of a call no longer changes.

    At least 10 calls, at least 2 s, and until the median of the last 10 calls differs by less than 2 % from
    that of the 10 before; given up after 15 s.

    Returns:
        `runs`, `seconds` and whether it became `steady`.
    """
    limits = limits or WARM_UP
    recent: collections.deque[int] = collections.deque(maxlen=20)
    begin = last_tick = time.perf_counter()
    for runs, feed in enumerate(itertools.cycle(feeds), start=1):
        start = time.perf_counter_ns()
        call(feed)
        recent.append(time.perf_counter_ns() - start)
        now = time.perf_counter()
        if now - last_tick >= TICK_SECONDS:
            tick("warming up", runs, now - begin)
            last_tick = now
        if runs < limits["least_runs"] or now - begin < limits["min_seconds"]:
            continue
        late = now - begin >= limits["max_seconds"]
        steady = (late or runs % 10 == 0) and is_steady(recent, limits["steady_change"])
        if steady or late:
            return {"runs": runs, "seconds": round(now - begin, 3), "steady": steady}
    raise ValueError("no inputs to warm up with")


def is_steady(recent: Sequence[int] | collections.deque[int], change: float) -> bool:
    """Whether the medians of the older and the newer half differ by less than `change`."""
    times = list(recent)
    half = len(times) // 2
    if half < 2:
        return False
    older, newer = statistics.median(times[-2 * half : -half]), statistics.median(times[-half:])
    return abs(newer - older) < change * older


def measure(call: Call, feeds: Sequence[Any], protocol: dict[str, float], tick: Tick) -> dict[str, Any]:
    """Time calls, with the inputs in turn, for as long as `protocol` asks.

    Memory is bounded: of more than 65,536 runs a uniformly random subset of that size is kept (reservoir
    sampling, Vitter's algorithm R), in the order of the runs.

    Returns:
        `runs`, `seconds`, `max_of_all_runs_ms` and the kept `samples_ms`.
    """
    kept = array.array("q")
    index = array.array("q")
    choose = random.Random(0)  # noqa: S311 - which samples are kept is no secret
    slowest = 0
    begin = last_tick = time.perf_counter()
    for runs, feed in enumerate(itertools.cycle(feeds), start=1):
        start = time.perf_counter_ns()
        call(feed)
        taken = time.perf_counter_ns() - start
        slowest = max(slowest, taken)
        _keep(kept, index, runs, taken, choose)
        now = time.perf_counter()
        if now - last_tick >= TICK_SECONDS:
            tick("measuring", runs, now - begin)
            last_tick = now
        if is_done(runs, now - begin, protocol):
            order = sorted(range(len(kept)), key=index.__getitem__)
            return {
                "runs": runs,
                "seconds": round(now - begin, 3),
                "max_of_all_runs_ms": slowest / 1e6,
                "samples_ms": [round(kept[place] / 1e6, 6) for place in order],
            }
    raise ValueError("no inputs to measure with")


def _keep(
    kept: array.array[int], index: array.array[int], runs: int, taken: int, choose: random.Random
) -> None:
    if runs <= MOST_SAMPLES:
        kept.append(taken)
        index.append(runs)
        return
    place = choose.randrange(runs)
    if place < MOST_SAMPLES:
        kept[place] = taken
        index[place] = runs


def is_done(runs: int, seconds: float, protocol: dict[str, float]) -> bool:
    """Whether a run of so many calls and seconds satisfies the protocol."""
    if runs >= protocol["enough_runs"] and seconds >= protocol["min_seconds"]:
        return True
    return runs >= protocol["least_runs"] and seconds >= protocol["max_seconds"]
