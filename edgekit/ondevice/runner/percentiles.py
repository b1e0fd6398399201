"""Statistics of latency samples: pure functions, Python 3.8 and the standard library only.

A percentile is never read straight off a short run. MLPerf's early-stopping rule (inference_rules.adoc of
mlcommons/inference_policies, section "Early Stopping") says how many of the highest samples may be dropped
so that, with 99 % confidence, the true percentile is not above what is reported.
"""

from __future__ import annotations

import math
from typing import Any, Sequence

CONFIDENCE = 0.99
TAILS = (0.90, 0.99)


def binomial_cdf(k: int, n: int, chance: float) -> float:
    """The chance of at most `k` successes in `n` trials of `chance` each.

    It is the regularised incomplete beta function I(1 - chance; n - k, k + 1).
    """
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    return _incomplete_beta(1.0 - chance, n - k, k + 1)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I(x; a, b) by the continued fraction, from the side where it converges fast (DLMF 8.17.22)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _continued_fraction(x, a, b) / a
    return 1.0 - front * _continued_fraction(1.0 - x, b, a) / b


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Lentz's method; needs about sqrt(max(a, b)) terms."""
    tiny = 1e-300
    c = 1.0
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0), tiny)
    result = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        change = 1.0
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d, tiny)
            c = _away_from_zero(1.0 + term / c, tiny)
            change = c * d
            result *= change
        if abs(change - 1.0) < 1e-15:
            break
    return result


def _away_from_zero(value: float, tiny: float) -> float:
    return tiny if abs(value) < tiny else value


def over_latency_allowance(n: int, percentile: float) -> int:
    """The largest t with F(t; n, 1 - percentile) <= 1 - CONFIDENCE; 0 when the samples cannot carry it."""
    low, high = 0, int(n * (1.0 - percentile)) + 1
    while low < high:
        middle = (low + high + 1) // 2
        if binomial_cdf(middle, n, 1.0 - percentile) <= 1.0 - CONFIDENCE:
            low = middle
        else:
            high = middle - 1
    return low


def least_samples(percentile: float) -> int:
    """How many samples a claim about `percentile` needs at least: 64 for 0.90, 662 for 0.99."""
    high = 1
    while over_latency_allowance(high, percentile) < 1:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if over_latency_allowance(middle, percentile) < 1:
            low = middle
        else:
            high = middle
    return high


def early_stopping(ordered: Sequence[float], percentile: float) -> float | None:
    """MLPerf's estimate of `percentile` from ascending samples; None when they are too few.

    Drops the t - 1 highest and reports the maximum of the rest.
    """
    allowance = over_latency_allowance(len(ordered), percentile)
    return ordered[len(ordered) - allowance] if allowance >= 1 else None


def plain_percentile(ordered: Sequence[float], percentile: float) -> float:
    """The percentile of ascending samples by linear interpolation, with no claim about the next run."""
    position = percentile * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarize(samples_ms: Sequence[float]) -> dict[str, Any]:
    """The statistics of a run, every key with its unit.

    p50 is a plain percentile; p90 and p99 follow the early-stopping rule and are None where the samples
    cannot carry them, with the reason in `not_given`.

    Raises:
        ValueError: no samples.
    """
    if not samples_ms:
        raise ValueError("no samples")
    ordered = sorted(samples_ms)
    n = len(ordered)
    mean = math.fsum(ordered) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / (n - 1)) if n > 1 else 0.0
    result: dict[str, Any] = {
        "n": n,
        "p50_ms": plain_percentile(ordered, 0.50),
        "mean_ms": mean,
        "min_ms": ordered[0],
        "max_ms": ordered[-1],
        "std_ms": spread,
    }
    missing = {}
    for tail in TAILS:
        name = f"p{round(tail * 100)}"
        result[name + "_ms"] = early_stopping(ordered, tail)
        if result[name + "_ms"] is None:
            missing[name] = f"{n} runs cannot carry it, at least {least_samples(tail)} are needed"
    result["not_given"] = missing
    return result
