"""Every way of quantizing, by runtime; and which of them a network and its settings leave."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from edgekit.artifact import Converted, RuntimeName
from edgekit.compress.context import Context
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.way import Way
from edgekit.near import nearest


def ways_of(runtime: RuntimeName) -> tuple[Way, ...]:
    """All ways of one runtime."""
    found: tuple[Way, ...] = importlib.import_module(f"edgekit.compress.quantization.{runtime}_ways").WAYS
    return found


def possible_ways(
    converted: Converted, settings: Settings, context: Context
) -> tuple[tuple[Way, ...], tuple[str, ...]]:
    """The ways that can be tried, and one line for each that was asked for and cannot.

    With method `auto` and route `auto` a way that does not fit is passed over silently where another fits.
    """
    runtime = converted.artifact.runtime
    known = ways_of(runtime)
    asked = [way for way in known if _asked(way, settings)]
    if not asked:
        return (), (_no_such(runtime, known, settings),)
    reasons = [(way, way.why_not(converted, settings, context)) for way in asked]
    fitting = tuple(way for way, reason in reasons if not reason)
    return fitting, tuple(dict.fromkeys(f"{way.name}: {reason}" for way, reason in reasons if reason))


def _asked(way: Way, settings: Settings) -> bool:
    if settings.route != "auto":
        return way.name == settings.route
    if settings.method == "auto":
        return way.by_itself
    return way.method == settings.method and (way.by_itself or settings.method == "qat")


def _no_such(runtime: RuntimeName, known: Sequence[Way], settings: Settings) -> str:
    names = [way.name for way in known]
    if settings.route != "auto":
        advice = nearest(settings.route, names)
        more = f", {advice}" if advice else ""
        return f"{runtime} has no route `{settings.route}`{more} (known: {', '.join(names)})"
    methods = dict.fromkeys(way.method for way in known)
    return f"{runtime} has no method `{settings.method}` (known: {', '.join(methods)})"
