"""Quantities as people type them: `20ms`, `p99:40ms`, `64MiB`, `1%`."""

from __future__ import annotations

import math
import re

from edgekit.errors import BadInput, clean

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\D{0,8})\s*", re.ASCII)
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_PERCENTILES = ("p50", "p90", "p99")


def parse_milliseconds(text: str, *, option: str) -> float:
    """Milliseconds of a duration: `20ms`, `1.5s`, `800us`.

    Raises:
        BadInput: not a duration above 0; the line names `option` and an example.
    """
    return _parse(text, _MILLISECONDS, option, f"{option} 20ms")


def parse_seconds(text: str, *, option: str) -> float:
    """Seconds of a long duration: `30s`, `10m`, `1h`.

    Raises:
        BadInput: not a duration above 0; the line names `option` and an example.
    """
    return _parse(text, _SECONDS, option, f"{option} 10m")


def parse_megabytes(text: str, *, option: str) -> float:
    """Megabytes (10^6 bytes) of a size: `64MB`, `500KB`, `64MiB` (2^20 bytes each).

    Raises:
        BadInput: not a size above 0; the line names `option` and an example.
    """
    return _parse(text, _BYTES, option, f"{option} 64MB") / 1e6


def parse_drop(text: str, *, option: str) -> float:
    """A quality drop as a share: `1%` and `0.01` are the same.

    Raises:
        BadInput: not a share between 0 and 1; the line names `option` and an example.
    """
    value = _parse(text, {"%": 0.01, "": 1.0}, option, f"{option} 1%")
    if value >= 1:
        raise BadInput(
            f"`{clean(text, 40)}` would allow everything to be lost",
            where=option,
            todo=f"write for example `{option} 1%`",
        )
    return value


def parse_latency(text: str, *, option: str) -> tuple[str, float]:
    """The field of `Cost` and the milliseconds of a latency limit: `p99:40ms`; without a percentile, p90.

    Raises:
        BadInput: an unknown percentile, or no duration above 0.
    """
    percentile, colon, duration = text.rpartition(":")
    name = percentile.strip().lower() if colon else "p90"
    if name not in _PERCENTILES:
        raise BadInput(
            f"`{clean(percentile, 40)}` is not a percentile that edgekit limits",
            where=option,
            todo=f"use one of {', '.join(_PERCENTILES)}, for example `{option} p99:40ms`",
        )
    return f"latency_{name}_ms", parse_milliseconds(duration, option=option)


def _parse(text: str, units: dict[str, float], option: str, example: str) -> float:
    todo = f"write for example `{example}`"
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadInput(f"`{clean(text, 40)}` is not a number with a unit", where=option, todo=todo)
    number, unit = float(match[1]), match[2].strip().lower()
    if unit not in units:
        known = ", ".join(name for name in units if name and name.isascii())
        what = f"`{clean(match[2], 40)}` is not a unit" if unit else f"`{clean(text, 40)}` has no unit"
        raise BadInput(f"{what} (known: {known})", where=option, todo=todo)
    value = number * units[unit]
    if not math.isfinite(value) or value <= 0:
        raise BadInput(f"must be more than 0, not `{clean(text, 40)}`", where=option, todo=todo)
    return value
