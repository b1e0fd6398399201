"""The signal-to-noise ratio between two sets of arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def snr_db(reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """The energy of the reference over the energy of the difference, in dB, pooled over all arrays.

    Infinite when nothing differs, an all-zero or empty reference included; minus infinite when the reference
    is zero and the outputs are not, or where a value is not finite that should be.

    Args:
        reference: what is right.
        outputs: what is judged, of the same shapes.
    """
    signal = noise = 0.0
    for expected, got in zip(reference, outputs, strict=True):
        wanted, found = (np.asarray(array, dtype=np.float64) for array in (expected, got))
        same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
        # Infinite values that agree (a mask in an output) say nothing about the finite ones.
        signal += float(np.square(wanted[np.isfinite(wanted)]).sum())
        noise += float(np.square(wanted[~same] - found[~same]).sum())
    if noise == 0:
        return math.inf
    if not math.isfinite(noise) or signal == 0:
        return -math.inf
    return 10 * math.log10(signal / noise)
