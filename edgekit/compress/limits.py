"""How a quality stands against the limits of a build."""

from __future__ import annotations

import math

from edgekit.compress.context import Context
from edgekit.result import Quality


def excess(quality: Quality, context: Context) -> float:
    """By how much a loss passes its limit, of the limits that are named the one passed most.

    Negative while all hold, -inf where none is named; a quality that nothing tells loses nothing.
    """
    pairs = [(quality.drop, context.max_drop), (quality.class_drop, context.max_class_drop)]
    return max(((lost or 0.0) - most for lost, most in pairs if most is not None), default=-math.inf)
