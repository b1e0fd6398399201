"""How an artifact stands against the limits of a build: of quality, of size and of time."""

from __future__ import annotations

import math

from edgekit.alternate import compare_artifacts
from edgekit.artifact import Artifact
from edgekit.compress.context import Context
from edgekit.result import Quality


def excess(quality: Quality, context: Context) -> float:
    """By how much a loss passes its limit, of the limits that are named the one passed most.

    Negative while all hold, -inf where none is named; a quality that nothing tells loses nothing.
    """
    pairs = [(quality.drop, context.max_drop), (quality.class_drop, context.max_class_drop)]
    return max(((lost or 0.0) - most for lost, most in pairs if most is not None), default=-math.inf)


def room_for_float(context: Context) -> str:
    """Why no layer in float could be wanted; empty where a limit of size or time says how many may be."""
    if context.most_bytes is None and context.least_speedup is None:
        return "neither a limit of size nor one of latency says how many layers may stay in float"
    return ""


def small_and_fast(artifact: Artifact, floats: Artifact, context: Context) -> bool:
    """Whether an artifact keeps the limit of size, and is as much faster than float as the latency asks.

    The speed is measured in turns with the float artifact, on this machine with one thread.
    """
    if context.most_bytes is not None and artifact.size_bytes > context.most_bytes:
        return False
    if context.least_speedup is None:
        return True
    calls = context.calls[:8] or [context.example]
    found = compare_artifacts({"float": floats, "mixed": artifact}, calls, threads=1)
    return 1 / found["mixed"].ratio_to_first >= context.least_speedup
