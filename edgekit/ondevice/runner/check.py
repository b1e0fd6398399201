"""Whether a bundle's files and outputs are what its manifest says."""

from __future__ import annotations

import hashlib
import math
import os
from typing import Any, Mapping, Sequence

Digests = Mapping[str, Mapping[str, Any]]
SILENCE = 1e-6  # root mean square up to which an output that should be all zero counts as zero


def sha256(path: str) -> str:
    """The SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def wrong_files(folder: str, files: Digests) -> list[str]:
    """One line for each listed file that is missing, no plain file, or not as listed."""
    lines = []
    for name in sorted(files):
        path = os.path.join(folder, *name.split("/"))
        if os.path.islink(path) or not os.path.isfile(path):
            lines.append(f"{name} is missing" if not os.path.lexists(path) else f"{name} is not a plain file")
        elif os.path.getsize(path) != files[name]["bytes"]:
            lines.append(f"{name} has {os.path.getsize(path)} bytes, not {files[name]['bytes']}")
        elif sha256(path) != files[name]["sha256"]:
            lines.append(f"{name} was changed: its SHA-256 is not the one in manifest.json")
    return lines


def signal_to_noise_db(expected: Any, got: Any) -> float:
    """10 log10 of the energy of `expected` over that of the difference; infinite when they are equal."""
    import numpy

    reference = numpy.asarray(expected).astype(numpy.float64)
    noise = float(numpy.sum((reference - numpy.asarray(got).astype(numpy.float64)) ** 2))
    signal = float(numpy.sum(reference**2))
    if signal == 0:
        return math.inf if noise <= SILENCE**2 * reference.size else -math.inf
    return 10 * math.log10(signal / noise) if noise > 0 else math.inf


def compare(
    expected: Sequence[Any], got: Sequence[Any], names: Sequence[str], min_snr_db: float
) -> tuple[float, str | None]:
    """Compare the outputs of one call with what they must be.

    Returns:
        The lowest signal-to-noise ratio over the outputs, dB, and what is wrong in words (None: nothing).
    """
    lowest = math.inf
    if len(got) != len(expected):
        return -math.inf, f"{len(got)} outputs, not {len(expected)}"
    for i, name in enumerate(names):
        unlike = _unlike(expected[i], got[i])
        if unlike:
            return -math.inf, f"output `{name}` {unlike}"
        snr_db = signal_to_noise_db(expected[i], got[i])
        lowest = min(lowest, snr_db)
        if snr_db < min_snr_db:
            need = f"at least {min_snr_db:g} is needed"
            return lowest, f"output `{name}` has signal-to-noise {snr_db:.1f} dB, {need}"
    return lowest, None


def _unlike(expected: Any, got: Any) -> str | None:
    """Why two arrays cannot be compared by their values, or None."""
    import numpy

    want, have = numpy.asarray(expected), numpy.asarray(got)
    if have.shape != want.shape or have.dtype != want.dtype:
        return f"is {have.dtype}{list(have.shape)}, not {want.dtype}{list(want.shape)}"
    if have.dtype.kind not in "fiub":
        return f"is {have.dtype}, which holds no numbers"
    if not numpy.isfinite(want).all():
        return "is NaN or infinite in the golden sample itself"
    return None if numpy.isfinite(have).all() else "holds NaN or infinite values"
