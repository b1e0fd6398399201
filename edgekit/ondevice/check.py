"""Whether a bundle's files and outputs are what its manifest says."""

from __future__ import annotations

import hashlib
import math
import os
from typing import Any, Mapping, Sequence

Digests = Mapping[str, Mapping[str, Any]]


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
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def compare(
    expected: Sequence[Any], got: Sequence[Any], names: Sequence[str], min_snr_db: float
) -> tuple[float, str | None]:
    """Compare the outputs of one call with what they must be.

    Returns:
        The lowest signal-to-noise ratio over the outputs, dB, and what is wrong in words (None: nothing).
    """
    import numpy

    lowest = math.inf
    if len(got) != len(expected):
        return -math.inf, f"{len(got)} outputs, not {len(expected)}"
    for i, name in enumerate(names):
        want, have = numpy.asarray(expected[i]), numpy.asarray(got[i])
        if have.shape != want.shape or have.dtype != want.dtype:
            shown = f"{have.dtype}{list(have.shape)}, not {want.dtype}{list(want.shape)}"
            return -math.inf, f"output `{name}` is {shown}"
        if have.dtype.kind not in "fiub":
            if not numpy.array_equal(want, have):
                return -math.inf, f"output `{name}` differs"
            continue
        if not numpy.isfinite(have).all():
            return -math.inf, f"output `{name}` holds NaN or infinite values"
        snr_db = signal_to_noise_db(want, have)
        lowest = min(lowest, snr_db)
        if snr_db < min_snr_db:
            return (
                lowest,
                f"output `{name}` has signal-to-noise {snr_db:.1f} dB, at least {min_snr_db:g} is needed",
            )
    return lowest, None
