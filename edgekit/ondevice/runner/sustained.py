"""What a device gives in the long run: latency over time, where it is steady, how much slower it is then.

Pure functions over what was measured. Steady is what SNIA's Solid State Storage Performance Test
Specification makes of it: the figures of equal windows stay in a narrow band around their middle. Its band
is 20 % wide and holds rounds of throughput, this one is 10 % wide and holds medians of latency.
"""

from __future__ import annotations

import math
import statistics
from typing import Any, Mapping, Sequence

Window = Mapping[str, Any]
Snapshot = Mapping[str, Any]

MOST_WINDOWS, LEAST_WINDOWS = 120, 6
LEAST_WINDOW_SECONDS = 0.5
RUNS_IN_A_WINDOW = 10
BAND = 0.05
MOST_CLOCK_DROP = 0.05
FIRST_SECONDS = 60.0
METHOD = (
    "steady from the first window on after which every median, smoothed over three windows, stays within 5 % "
    "of the median of the last third"
)


def protocol(seconds: float) -> dict[str, float]:
    """How long to measure: for `seconds`, however many runs that are."""
    return {"enough_runs": math.inf, "min_seconds": seconds, "max_seconds": seconds}


def window_ns(seconds: float, call_seconds: float) -> int:
    """The length of a window, nanoseconds: a 120th of the run, but at least 10 runs and half a second.

    Args:
        seconds: the length of the run.
        call_seconds: about what a run takes.
    """
    most = seconds / max(LEAST_WINDOW_SECONDS, RUNS_IN_A_WINDOW * call_seconds)
    return math.ceil(seconds * 1e9 / min(MOST_WINDOWS, max(LEAST_WINDOWS, int(most))))


def windows_of(
    measured: Mapping[str, Any], width_ns: int, snapshots: Sequence[Snapshot], begin_s: float
) -> list[dict[str, Any]]:
    """The windows in which runs started, in their order.

    Args:
        measured: what `measure.measure` gave; its `windows` have the length `width_ns`.
        width_ns: nanoseconds.
        snapshots: of the machine; the last of each window says how it was then.
        begin_s: when the first run started, on the clock of the snapshots.

    Returns:
        `start_s`, `runs`, `p50_ms` and `p90_ms` (plain percentiles of the samples that were kept; None where
        none was), `max_ms` of all runs, and `temperature_c`, `clock_mhz`, `throttled`, `governor`.
    """
    samples: dict[int, list[float]] = {}
    for start, taken in zip(measured["starts_ns"], measured["samples_ms"]):  # noqa: B905 - as long
        samples.setdefault(start // width_ns, []).append(taken)
    states = {int((state["clock_s"] - begin_s) * 1e9) // width_ns: state for state in snapshots}
    windows = []
    for number in sorted(measured["windows"]):
        runs, slowest = measured["windows"][number]
        ordered, state = sorted(samples.get(number, [])), states.get(number, {})
        windows.append(
            {
                "start_s": number * width_ns / 1e9,
                "runs": runs,
                "p50_ms": statistics.median(ordered) if ordered else None,
                "p90_ms": ordered[math.ceil(0.9 * len(ordered)) - 1] if ordered else None,
                "max_ms": slowest,
                **{key: state.get(key) for key in ("temperature_c", "clock_mhz", "throttled", "governor")},
            }
        )
    return windows


def steady_from(medians: Sequence[float]) -> int | None:
    """The number of the window from which on the medians are steady; None when they never are.

    Every later median lies within 5 % of the median of the last third, and that holds for the whole last
    third at least. The medians are smoothed over three windows before, so that one window in which something
    else ran does not hide that the rest is steady.
    """
    if len(medians) < LEAST_WINDOWS:
        return None
    smooth = [statistics.median(medians[max(0, i - 1) : i + 2]) for i in range(len(medians))]
    # Two values have no middle one: the first stands for itself, the last is the middle of the last three.
    smooth[0], smooth[-1] = medians[0], statistics.median(medians[-3:])
    third = len(smooth) // 3
    middle = statistics.median(smooth[-third:])
    far = [i for i, value in enumerate(smooth) if abs(value - middle) > BAND * middle]
    first = far[-1] + 1 if far else 0
    return first if first <= len(smooth) - third else None


def judge(measured: Mapping[str, Any], windows: Sequence[Window], seconds: float) -> dict[str, Any]:
    """What the windows say, and the samples of the part to be judged by.

    Args:
        measured: what `measure.measure` gave.
        windows: from `windows_of`.
        seconds: that the run was asked to last.

    Returns:
        `asked_seconds`, `method`, `steady` and `judged_from_s` (where the steady part begins; of a run that
        never became steady, its last third), `first_seconds` and `first_p50_ms` (of the first minute, or the
        first tenth of a run of under ten), `slowdown` (the median of the judged part over it),
        `highest_temperature_c`; and the judged `samples_ms`.
    """
    known = [window for window in windows if window["p50_ms"] is not None]
    place = steady_from([window["p50_ms"] for window in known])
    last_third = known[len(known) - max(1, len(known) // 3)]
    begin = (last_third if place is None else known[place])["start_s"]
    judged = _between(measured, begin, math.inf)
    first_seconds = min(FIRST_SECONDS, seconds / 10)
    first = _between(measured, 0.0, first_seconds) or measured["samples_ms"][:1]
    temperatures = [one["temperature_c"] for one in windows if one["temperature_c"] is not None]
    return {
        "asked_seconds": seconds,
        "method": METHOD,
        "steady": place is not None,
        "judged_from_s": begin,
        "first_seconds": first_seconds,
        "first_p50_ms": statistics.median(first),
        "slowdown": statistics.median(judged) / statistics.median(first),
        "highest_temperature_c": max(temperatures) if temperatures else None,
        "samples_ms": judged,
    }


def _between(measured: Mapping[str, Any], begin: float, end: float) -> list[float]:
    pairs = zip(measured["starts_ns"], measured["samples_ms"])  # noqa: B905 - as long
    return [taken for start, taken in pairs if round(begin * 1e9) <= start < end * 1e9]


def clock_fell(windows: Sequence[Window], judged_from: float) -> str | None:
    """How much lower the clock of the judged part is than that of the first tenth, in words, or None."""
    clocks = [(one["start_s"], one["clock_mhz"]) for one in windows if one["clock_mhz"]]
    late = [clock for start, clock in clocks if start >= judged_from]
    if not late or len(clocks) == len(late) == 1:
        return None
    early = [clock for _, clock in clocks[: max(1, len(clocks) // 10)]]
    before, after = statistics.median(early), statistics.median(late)
    if after >= (1 - MOST_CLOCK_DROP) * before:
        return None
    return f"the clock fell from {before:.0f} to {after:.0f} MHz"
