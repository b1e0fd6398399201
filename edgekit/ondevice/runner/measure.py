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

# A measurement ends when it has `enough_runs` and `min_seconds`, at the latest after `max_seconds`: a slow
# model then has fewer runs, and percentiles that they cannot carry are not given. MLPerf's edge single-stream
# asks for 1,024 runs and 60 s (v0.5), later 600 s.
PROTOCOLS = {
    "quick": {"enough_runs": 1024, "min_seconds": 2.0, "max_seconds": 6.5},
    "standard": {"enough_runs": 1024, "min_seconds": 60.0, "max_seconds": 600.0},
    "strict": {"enough_runs": 1024, "min_seconds": 600.0, "max_seconds": 3600.0},
}
_WARM_UP = {"least_runs": 10, "min_seconds": 2.0, "max_seconds": 15.0, "steady_change": 0.02}
WARM_UPS = {
    "quick": dict(_WARM_UP, min_seconds=0.5, max_seconds=2.5),
    "standard": _WARM_UP,
    "strict": _WARM_UP,
}
MOST_SAMPLES = 65_536
TICK_SECONDS = 0.5

Call = Callable[[Any], Any]
Tick = Callable[[str, int, float], None]


def warm_up(call: Call, feeds: Sequence[Any], limits: dict[str, float], tick: Tick) -> dict[str, Any]:
    """Call until the time of a call no longer changes.

    At least `least_runs` calls, at least `min_seconds`, and until the median of the last 10 calls differs by
    less than `steady_change` from that of the 10 before; given up after `max_seconds`.

    Returns:
        `runs`, `seconds` and whether it became `steady`.
    """
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
        late = now - begin >= limits["max_seconds"]
        if not late and (runs < limits["least_runs"] or now - begin < limits["min_seconds"]):
            continue
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


def measure(
    call: Call, feeds: Sequence[Any], protocol: dict[str, float], tick: Tick, *, window_ns: int = 10**15
) -> dict[str, Any]:
    """Time calls, with the inputs in turn, for as long as `protocol` asks.

    Memory is bounded: of more than 65,536 runs a uniformly random subset of that size is kept (reservoir
    sampling, Vitter's algorithm R), in the order of the runs. What is kept of any part of the run is then a
    uniformly random subset of that part.

    Args:
        call: what is timed.
        feeds: its inputs.
        protocol: how long, see `is_done`.
        tick: told of the progress twice a second.
        window_ns: length of the windows that runs are counted in, nanoseconds.

    Returns:
        `runs`, `seconds`, `max_of_all_runs_ms`, the kept `samples_ms` with `starts_ns` (when each started, in
        nanoseconds from the first), and `windows`: window number -> (all the runs that started in it, the
        slowest of them in milliseconds).
    """
    kept = array.array("q")
    starts = array.array("q")
    choose = random.Random(0)  # noqa: S311 - which samples are kept is no secret
    windows: dict[int, tuple[int, int]] = {}
    begin = last_tick = time.perf_counter()
    begin_ns = time.perf_counter_ns()
    for runs, feed in enumerate(itertools.cycle(feeds), start=1):
        start = time.perf_counter_ns()
        call(feed)
        taken = time.perf_counter_ns() - start
        number = (start - begin_ns) // window_ns
        count, slowest = windows.get(number, (0, 0))
        windows[number] = (count + 1, max(slowest, taken))
        _keep(kept, starts, runs, (start - begin_ns, taken), choose)
        now = time.perf_counter()
        if now - last_tick >= TICK_SECONDS:
            tick("measuring", runs, now - begin)
            last_tick = now
        if is_done(runs, now - begin, protocol):
            return {"runs": runs, "seconds": round(now - begin, 3), **_kept(kept, starts, windows)}
    raise ValueError("no inputs to measure with")


def _keep(
    kept: array.array[int], starts: array.array[int], runs: int, run: tuple[int, int], choose: random.Random
) -> None:
    start, taken = run
    if runs <= MOST_SAMPLES:
        kept.append(taken)
        starts.append(start)
        return
    place = choose.randrange(runs)
    if place < MOST_SAMPLES:
        kept[place] = taken
        starts[place] = start


def _kept(kept: Sequence[int], starts: Sequence[int], windows: dict[int, tuple[int, int]]) -> dict[str, Any]:
    """What was kept, in the order of the runs; nanoseconds become seconds and milliseconds."""
    order: list[int] = sorted(range(len(kept)), key=starts.__getitem__)
    return {
        "max_of_all_runs_ms": max(slowest for _, slowest in windows.values()) / 1e6,
        "samples_ms": [round(kept[place] / 1e6, 6) for place in order],
        "starts_ns": [starts[place] for place in order],
        "windows": {number: (count, slowest / 1e6) for number, (count, slowest) in windows.items()},
    }


def is_done(runs: int, seconds: float, protocol: dict[str, float]) -> bool:
    """Whether a run of so many calls and seconds satisfies the protocol."""
    enough = runs >= protocol["enough_runs"] and seconds >= protocol["min_seconds"]
    return enough or seconds >= protocol["max_seconds"]
