"""Charts of the build report: pure functions from numbers to SVG.

Colours come from the page's style by class. What cannot be drawn (unknown, NaN, infinite) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.report.markup import Markup, element, status_class, text
from edgekit.report.scale import Scale, drawable, fit, is_drawable, number_text, pixel, ticks

BAR_WIDTH, BAR_HEIGHT = 320, 30
PLOT_WIDTH, PLOT_HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 16, 46
# Where a limit stands on its bar; the rest shows by how much a figure exceeds it.
LIMIT_SHARE = 0.7


def svg(width: float, height: float, label: str, *parts: Markup, class_: str = "chart") -> Markup:
    """A drawing with its description for those who do not see it."""
    return element(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
        class_=class_,
    )


def rect(x: float, y: float, width: float, height: float, class_: str, **more: str | float) -> Markup:
    """A rectangle; never of negative width."""
    return element(
        "rect",
        x=pixel(x),
        y=pixel(y),
        width=pixel(max(width, 0.0)),
        height=pixel(max(height, 0.0)),
        class_=class_,
        **more,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=pixel(x1), y1=pixel(y1), x2=pixel(x2), y2=pixel(y2), class_=class_)


def words(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    """Text in a drawing."""
    return element("text", text(content), x=pixel(x), y=pixel(y), class_=class_ or None, text_anchor=anchor)


def nothing(label: str, reason: str) -> Markup:
    """A drawing that says why there is none."""
    return svg(PLOT_WIDTH, 60, f"{label}: {reason}", words(16, 34, reason, "note"))


def budget_bar(
    value: float | None,
    limit: float,
    *,
    low: float | None = None,
    high: float | None = None,
    status: str,
    label: str,
    key: str,
) -> Markup:
    """A figure against its limit, which stands at the same place on every bar.

    Args:
        value: the figure; None when nothing is known, which gives a hatched bar up to the limit.
        limit: in the same unit.
        low: lower end of the interval of a prediction.
        high: upper end.
        status: the verdict; UNPROVEN is hatched.
        label: the description for those who do not see it.
        key: makes the ids inside the drawing unique on a page.
    """
    largest = max(drawable([limit, 0.0]))
    top = largest / LIMIT_SHARE if largest > 0 else max(drawable([value, high, 0.0])) * 1.4 or 1.0
    scale = Scale(low=0.0, high=top, start=1, end=BAR_WIDTH - 1)
    end = scale.at(value) if value is not None and is_drawable(value) else scale.at(largest)
    hatch = f"hatch-{key}"
    fill = {"style": f"fill:url(#{hatch})"} if status == "UNPROVEN" else {}
    parts = [
        _hatch(hatch),
        rect(1, 9, BAR_WIDTH - 2, 12, "track", rx=3),
        rect(1, 9, end - 1, 12, f"bar {status_class(status)}", rx=3, **fill),
    ]
    if low is not None and high is not None and is_drawable(low) and is_drawable(high):
        parts += _whisker(scale, low, high)
    parts += [line(scale.at(largest), 2, scale.at(largest), 28, "limit")]
    if any(number > top for number in drawable([value, high])):
        parts.append(element("path", d=f"M{BAR_WIDTH - 9} 10 l7 5 l-7 5 z", class_="beyond"))
    return svg(BAR_WIDTH, BAR_HEIGHT, label, *parts, class_="strip")


def _hatch(identity: str) -> Markup:
    stripe = element("path", d="M0 6 L6 0", class_="stripe")
    pattern = element("pattern", stripe, id=identity, width=6, height=6, patternUnits="userSpaceOnUse")
    return element("defs", pattern)


def _whisker(scale: Scale, low: float, high: float) -> list[Markup]:
    left, right = scale.at(low), scale.at(high)
    return [
        line(left, 15, right, 15, "whisker"),
        line(left, 11, left, 19, "whisker"),
        line(right, 11, right, 19, "whisker"),
    ]


def ratio_bar(ratio: float | None, label: str) -> Markup:
    """A ratio over the float model: the line is 1, to its right is better."""
    known = ratio if ratio is not None and is_drawable(ratio) and ratio >= 0 else None
    scale = Scale(low=0.0, high=max(4.0, (known or 0.0) * 1.1), start=1, end=159)
    parts = [rect(1, 5, 158, 8, "track", rx=3)]
    if known is not None:
        kind = "met" if known > 1.005 else "neutral" if known > 0.995 else "not-met"
        parts.append(rect(1, 5, scale.at(known) - 1, 8, f"bar {kind}", rx=3))
    parts.append(line(scale.at(1.0), 1, scale.at(1.0), 17, "limit"))
    return svg(160, 18, label, *parts, class_="strip small")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One candidate on the scatter chart: `mark` is drawn in it, `name` is its tool tip."""

    x: float | None
    y: float | None
    mark: str
    name: str
    status: str = ""
    shipped: bool = False
    x_low: float | None = None
    x_high: float | None = None


def scatter(
    points: Sequence[Point],
    *,
    label: str,
    x_label: str,
    y_label: str,
    x_limit: float | None = None,
    y_limit: float | None = None,
) -> Markup:
    """Candidates by two figures, smaller is better on both; the region inside the budget is shaded."""
    shown = [point for point in points if is_drawable(point.x) and is_drawable(point.y)]
    if not shown:
        return nothing(label, "no candidate has both figures")
    x_scale = _axis([n for p in shown for n in (p.x, p.x_low, p.x_high)], x_limit, LEFT, PLOT_WIDTH - RIGHT)
    y_scale = _axis([p.y for p in shown], y_limit, PLOT_HEIGHT - BOTTOM, TOP, room=0.14)  # for the label
    parts = [*_region(x_scale, y_scale, x_limit, y_limit), *axes(x_scale, y_scale, x_label, y_label)]
    for point in sorted(shown, key=lambda point: point.shipped):
        parts.append(_dot(point, x_scale, y_scale))
    return svg(PLOT_WIDTH, PLOT_HEIGHT, label, *parts)


def _axis(
    values: Sequence[float | None], limit: float | None, start: float, end: float, room: float = 0.08
) -> Scale:
    """A scale for the values; the limit is on it when that does not squeeze them into a corner."""
    known = drawable(values)
    largest = max(known, default=0.0)
    near = [number for number in drawable([limit]) if largest <= 0 or number <= 4 * largest]
    return fit([*known, *near], start, end, room=room)


def _region(x_scale: Scale, y_scale: Scale, x_limit: float | None, y_limit: float | None) -> list[Markup]:
    if x_limit is None and y_limit is None:
        return []
    right = x_scale.end if x_limit is None or not is_drawable(x_limit) else x_scale.at(x_limit)
    top = y_scale.end if y_limit is None or not is_drawable(y_limit) else y_scale.at(y_limit)
    parts = [rect(x_scale.start, top, right - x_scale.start, y_scale.start - top, "region")]
    above = top - 6 if top > y_scale.end + 14 else top + 14
    parts.append(words(x_scale.start + 4, above, "inside the budget", "region-label"))
    return parts


def axes(x_scale: Scale, y_scale: Scale, x_label: str, y_label: str) -> list[Markup]:
    """Two axes with round ticks, a light grid for y, and what they show."""
    x_ticks, y_ticks = ticks(x_scale), ticks(y_scale, 4)
    parts = []
    for value in y_ticks:
        y = y_scale.at(value)
        parts.append(line(x_scale.start, y, x_scale.end, y, "grid"))
        parts.append(words(x_scale.start - 8, y + 4, number_text(value, _step(y_ticks)), "tick", "end"))
    for value in x_ticks:
        x = x_scale.at(value)
        parts.append(line(x, y_scale.start, x, y_scale.start + 4, "axis"))
        parts.append(words(x, y_scale.start + 18, number_text(value, _step(x_ticks)), "tick", "middle"))
    parts.append(line(x_scale.start, y_scale.start, x_scale.end, y_scale.start, "axis"))
    middle = (y_scale.start + y_scale.end) / 2
    parts.append(words((x_scale.start + x_scale.end) / 2, y_scale.start + 38, x_label, "label", "middle"))
    turned = f"rotate(-90 14 {pixel(middle)})"
    parts.append(
        element(
            "text",
            text(y_label),
            x=14,
            y=pixel(middle),
            class_="label",
            text_anchor="middle",
            transform=turned,
        )
    )
    return parts


def _step(values: Sequence[float]) -> float:
    return abs(values[1] - values[0]) if len(values) > 1 else abs(values[0]) if values and values[0] else 1.0


def _dot(point: Point, x_scale: Scale, y_scale: Scale) -> Markup:
    x, y = x_scale.at(point.x or 0.0), y_scale.at(point.y or 0.0)
    parts = [element("title", text(point.name))]
    if point.x_low is not None and point.x_high is not None and drawable([point.x_low, point.x_high]):
        low, high = x_scale.at(point.x_low), x_scale.at(point.x_high)
        parts += [line(low, y, high, y, "reach"), line(low, y - 4, low, y + 4, "reach")]
        parts.append(line(high, y - 4, high, y + 4, "reach"))
    if point.shipped:
        parts.append(element("circle", cx=pixel(x), cy=pixel(y), r=15, class_="ring"))
    parts.append(
        element("circle", cx=pixel(x), cy=pixel(y), r=10, class_=f"dot {status_class(point.status)}")
    )
    parts.append(words(x, y + 4, point.mark, "mark", "middle"))
    return element("g", *parts)
