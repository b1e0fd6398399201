"""Charts of the bench report: pure functions from latency samples to SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edgekit.report.charts import (
    BOTTOM,
    LEFT,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    RIGHT,
    axes,
    line,
    nothing,
    rect,
    svg,
    words,
)
from edgekit.report.markup import Markup, element, text
from edgekit.report.scale import Scale, drawable, fit, is_drawable, pixel
from edgekit.report.words import show_ms

ROW = 18
TOP = 3 * ROW
MOST_COLUMNS = 60
MOST_SPANS = 300


def histogram(samples_ms: Sequence[float], marks: Mapping[str, float | None], *, label: str) -> Markup:
    """How often each latency came.

    The axis ends where the bulk does, so that a few stragglers do not squeeze the rest; the last column holds
    all that took longer, and says so.

    Args:
        samples_ms: latency of each run, milliseconds.
        marks: names of percentiles and where they stand; unknown ones are left out.
        label: the description for those who do not see it.
    """
    ordered = sorted(drawable(samples_ms))
    if not ordered:
        return nothing(label, "there are no samples")
    edges = _edges(ordered)
    counts = _count(ordered, edges)
    x_scale = Scale(low=edges[0], high=edges[-1], start=LEFT, end=PLOT_WIDTH - RIGHT)
    y_scale = fit([float(count) for count in counts], PLOT_HEIGHT - BOTTOM, TOP)
    parts = axes(x_scale, y_scale, "latency, ms", "runs")
    for number, count in enumerate(counts):
        x, width = x_scale.at(edges[number]), x_scale.at(edges[number + 1]) - x_scale.at(edges[number])
        tip = element("title", text(f"{edges[number]:.4g} to {edges[number + 1]:.4g} ms: {count} runs"))
        top = y_scale.at(count)
        bar = rect(x + 0.5, top, max(width - 1, 0.5), y_scale.start - top, "column")
        parts.append(element("g", tip, bar))
    beyond = sum(value > edges[-1] for value in ordered)
    if beyond:
        note = f"{beyond} slower, up to {show_ms(ordered[-1])} →"
        parts.append(words(x_scale.end, TOP + ROW, note, "note", "end"))
    return svg(PLOT_WIDTH, PLOT_HEIGHT, label, *parts, *_guides(marks, x_scale, y_scale))


def _edges(ordered: Sequence[float]) -> list[float]:
    """Borders of equal columns, as wide as Freedman and Diaconis say (1981), 8 to 60 of them."""
    n = len(ordered)
    low, slow, slowest = ordered[0], ordered[(95 * n) // 100], ordered[min(n - 1, math.ceil(0.995 * n))]
    high = min(slowest, slow + 1.5 * (slow - ordered[n // 20]))
    spread = ordered[(3 * n) // 4] - ordered[n // 4]
    span = high - low
    if span <= max(abs(low), abs(high)) * 1e-6:
        middle, half = low, abs(low) * 0.05 or 0.5
        low, span = middle - half, 2 * half
    wide = 2 * spread / n ** (1 / 3)
    columns = 24 if wide <= 0 else max(8, min(MOST_COLUMNS, math.ceil(span / wide)))
    return [low + span * number / columns for number in range(columns + 1)]


def _count(ordered: Sequence[float], edges: Sequence[float]) -> list[int]:
    columns = len(edges) - 1
    width = (edges[-1] - edges[0]) / columns
    counts = [0] * columns
    for value in ordered:
        counts[min(columns - 1, max(0, int((value - edges[0]) / width)))] += 1
    return counts


def _guides(marks: Mapping[str, float | None], x_scale: Scale, y_scale: Scale) -> list[Markup]:
    """Upright lines at the percentiles, each name in a row of its own; an arrow points off the axis."""
    parts = []
    known = sorted((value, name) for name, value in marks.items() if value is not None and is_drawable(value))
    for row, (value, name) in enumerate(known):
        x, y, label = x_scale.at(value), 14 + ROW * row, f"{name} {show_ms(value)}"
        if value > x_scale.high:
            parts.append(words(x_scale.end, y, f"{label} →", "guide-label", "end"))
            continue
        anchor, aside = ("end", -4) if x > PLOT_WIDTH - 120 else ("start", 4)
        parts += [
            line(x, y - 10, x, y_scale.start, "guide"),
            words(x + aside, y, label, "guide-label", anchor),
        ]
    return parts


def timeline(samples_ms: Sequence[float], *, label: str) -> Markup:
    """Latency from the first run to the last: the median of spans of runs, in the band of extremes.

    Peaks far above the rest are cut, and said.
    """
    known = drawable(samples_ms)
    if not known:
        return nothing(label, "there are no samples")
    spans = _spans(known)
    x_scale = Scale(low=0.0, high=float(max(len(known), 2)), start=LEFT, end=PLOT_WIDTH - RIGHT)
    usual = 4 * sorted(known)[(95 * len(known)) // 100]
    y_scale = fit([min(high, usual) for _, _, _, high in spans], PLOT_HEIGHT - BOTTOM, ROW + 6)
    upper = [(x_scale.at(place), y_scale.at(high)) for place, _, _, high in spans]
    lower = [(x_scale.at(place), y_scale.at(low)) for place, low, _, _ in spans]
    middle = [(x_scale.at(place), y_scale.at(median)) for place, _, median, _ in spans]
    parts = [
        *axes(x_scale, y_scale, "run", "latency, ms"),
        element("polygon", points=_path([*upper, *reversed(lower)]), class_="band"),
        element("polyline", points=_path(middle), class_="trace"),
    ]
    if max(known) > y_scale.high:
        parts.append(words(x_scale.end, ROW - 4, f"up to {show_ms(max(known))}", "note", "end"))
    return svg(PLOT_WIDTH, PLOT_HEIGHT, label, *parts)


def _spans(samples: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """Runs put together to at most 300 spans: the middle run, least, median, most."""
    size = math.ceil(len(samples) / MOST_SPANS)
    spans = []
    for start in range(0, len(samples), size):
        part = sorted(samples[start : start + size])
        spans.append((start + len(part) / 2, part[0], part[len(part) // 2], part[-1]))
    return spans


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{pixel(x)},{pixel(y)}" for x, y in points)
