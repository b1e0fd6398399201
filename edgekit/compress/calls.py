"""Which calibration calls a quantizer is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Call = Mapping[str, np.ndarray]
RANKING_CALLS = 8  # on which artifacts are held against float to rank them, not to judge them


def spread(calls: Sequence[Call], most: int) -> list[Call]:
    """At most `most` calls, evenly spread over all of them."""
    if len(calls) <= most:
        return list(calls)
    return [calls[index] for index in np.linspace(0, len(calls) - 1, most).astype(int)]
