"""A sustained benchmark: what became of latency and temperature over time, in words and drawings."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.errors import clean
from edgekit.report.charts import (
    BOTTOM,
    LEFT,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    RIGHT,
    TOP,
    axes,
    nothing,
    rect,
    svg,
    words,
)
from edgekit.report.markup import Markup, element
from edgekit.report.scale import Scale, drawable, fit, is_drawable, pixel
from edgekit.report.words import listed, show_ms, took

Record = Mapping[str, Any]
Series = Sequence[tuple[float, float]]

STATE_HEIGHT = 170
BLOCKS = "▁▂▃▄▅▆▇█"
MOST_BLOCKS = 48
LEAST_SPREAD = (
    0.1  # a tenth of the lowest value fills a sparkline, so that noise does not look like a mountain
)


def sustained_line(sustained: Record) -> str:
    """Where it was steady, how much slower it was there, and whether it throttled."""
    share = sustained["slowdown"]
    first = (
        "the first minute"
        if sustained["first_seconds"] == 60
        else f"the first {took(sustained['first_seconds'])}"
    )
    change = "the same as in" if abs(share - 1) < 0.005 else f"{share:.2f} times that of"
    begin = took(sustained["judged_from_s"])
    if not sustained["steady"]:
        steady = f"not steady after {took(sustained['asked_seconds'])}: judged from {begin} on"
    else:
        steady = "steady from the start" if sustained["judged_from_s"] == 0 else f"steady from {begin} on"
    return f"{steady}; latency p50 there is {change} {first}; {throttle_text(sustained)}"


def throttle_text(sustained: Record) -> str:
    """Whether the machine throttled, and by what that shows."""
    highest = sustained["highest_temperature_c"]
    warm = f"; at most {highest:.1f} °C" if highest is not None else ""
    if sustained["throttled"] is None:
        return f"whether it throttled this machine does not tell{warm}"
    if not sustained["throttled"]:
        return f"no sign of throttling{warm}"
    return f"it throttled: {listed([clean(sign) for sign in sustained['throttle_signs']])}{warm}"


def sparklines(sustained: Record) -> list[tuple[str, str, str]]:
    """One row for each course that is known: what it is, its shape in blocks, from where to where it goes."""
    rows = []
    for name, key, show in (
        ("latency p50", "p50_ms", show_ms),
        ("temperature", "temperature_c", lambda value: f"{value:.1f} °C"),
        ("clock", "clock_mhz", lambda value: f"{value:.0f} MHz"),
    ):
        values = [value for _, value in course(sustained["windows"], key)]
        if values:
            rows.append((name, spark(values), f"{show(min(values))} to {show(max(values))}"))
    return rows


def spark(values: Sequence[float]) -> str:
    """The values as a row of at most 48 blocks, each the median of as many neighbours."""
    columns = min(MOST_BLOCKS, len(values))
    ends = [len(values) * number // columns for number in range(columns + 1)]
    middles = [statistics.median(values[ends[i] : ends[i + 1]]) for i in range(columns)]
    low = min(middles)
    spread = max(max(middles) - low, abs(low) * LEAST_SPREAD) or 1.0
    return "".join(BLOCKS[round((value - low) / spread * (len(BLOCKS) - 1))] for value in middles)


def course(windows: Sequence[Record], key: str) -> list[tuple[float, float]]:
    """When each window began, in seconds, and its value of `key`; those without one are left out."""
    pairs = ((window["start_s"], window[key]) for window in windows)
    return [(start, value) for start, value in pairs if is_drawable(start) and is_drawable(value)]


def latency_over_time(sustained: Record, *, label: str) -> Markup:
    """The median of each window, in the band up to its 90th percentile; the part that is judged is shaded."""
    windows = sustained["windows"]
    medians, tails = course(windows, "p50_ms"), course(windows, "p90_ms")
    if not medians:
        return nothing(label, "there are no windows")
    x_scale, unit = _time_scale(windows)
    y_scale = fit([value for _, value in (*medians, *tails)], PLOT_HEIGHT - BOTTOM, TOP)
    judged_from = sustained["judged_from_s"] if is_drawable(sustained["judged_from_s"]) else 0.0
    begin = x_scale.at(judged_from / unit[0])
    said = "steady" if sustained["steady"] else "judged, though not steady"
    band = [
        *_points(medians, x_scale, y_scale, unit[0]),
        *reversed(_points(tails, x_scale, y_scale, unit[0])),
    ]
    parts = [
        rect(begin, y_scale.end, x_scale.end - begin, y_scale.start - y_scale.end, "region"),
        words(x_scale.end - 4, y_scale.start - 8, said, "region-label", "end"),
        *axes(x_scale, y_scale, unit[1], "latency, ms"),
        element("polygon", points=_path(band), class_="band"),
        element("polyline", points=_path(_points(medians, x_scale, y_scale, unit[0])), class_="trace"),
    ]
    return svg(PLOT_WIDTH, PLOT_HEIGHT, label, *parts)


def state_over_time(sustained: Record, key: str, *, name: str, label: str) -> Markup:
    """The machine's temperature or clock on the same axis of time, or nothing where it tells neither."""
    known = course(sustained["windows"], key)
    if not known:
        return Markup("")
    x_scale, unit = _time_scale(sustained["windows"])
    y_scale = fit([value for _, value in known], STATE_HEIGHT - BOTTOM, TOP)
    trace = element("polyline", points=_path(_points(known, x_scale, y_scale, unit[0])), class_="trace")
    return svg(PLOT_WIDTH, STATE_HEIGHT, label, *axes(x_scale, y_scale, unit[1], name), trace)


def _time_scale(windows: Sequence[Record]) -> tuple[Scale, tuple[float, str]]:
    """The axis of time, and its unit: how many seconds, and its name."""
    starts = drawable([window["start_s"] for window in windows])
    width = min((b - a for a, b in itertools.pairwise(starts) if b > a), default=1.0)
    end = max([0.0, *starts]) + width
    unit = (60.0, "time, min") if end > 180 else (1.0, "time, s")
    return Scale(low=0.0, high=end / unit[0], start=LEFT, end=PLOT_WIDTH - RIGHT), unit


def _points(series: Series, x_scale: Scale, y_scale: Scale, unit: float) -> list[tuple[float, float]]:
    return [(x_scale.at(start / unit), y_scale.at(value)) for start, value in series]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{pixel(x)},{pixel(y)}" for x, y in points)
