"""Axes of charts: which numbers can be drawn, where they lie, which ticks to label."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# No latency, size or score is larger; beyond it the arithmetic of an axis loses its digits.
LARGEST = 1e12


def is_drawable(value: float | None) -> bool:
    """Whether a number can stand on an axis: known, finite, of a sane size."""
    return value is not None and math.isfinite(value) and abs(value) <= LARGEST


def drawable(values: Iterable[float | None]) -> list[float]:
    """The numbers that can be drawn."""
    return [float(value) for value in values if value is not None and is_drawable(value)]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map from `low..high` to the pixels `start..end`; what lies outside is held at the border."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def fit(values: Iterable[float], start: float, end: float, *, room: float = 0.08) -> Scale:
    """A scale that holds zero and all the values, with a little room above the largest."""
    known = drawable(values)
    low, high = min([0.0, *known]), max([0.0, *(known or [1.0])])
    least = max(abs(low), abs(high)) * 1e-6 or 1.0
    high = max(high, low + least)
    margin = (high - low) * room
    return Scale(low=low - margin if low else 0.0, high=high + margin, start=start, end=end)


def ticks(scale: Scale, count: int = 5) -> list[float]:
    """About `count` round numbers inside the scale."""
    raw = (scale.high - scale.low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
    return [number * step for number in range(first, last + 1)]


def number_text(value: float, step: float) -> str:
    """A tick's number, with as many digits as the step between ticks asks for."""
    if value == 0 or abs(value) < step / 1000:
        return "0"
    if abs(value) >= 1e6 or abs(step) < 1e-4:
        return f"{value:.3g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def pixel(value: float) -> str:
    """A coordinate as SVG text."""
    return f"{value:.1f}"
