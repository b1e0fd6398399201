"""How many singular values to keep."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar

Rule = Literal["energy", "nuclear", "ratio", "vbmf"]


def rank_for(values: np.ndarray, rule: Rule, amount: float, shape: tuple[int, int]) -> int:
    """The rank that a rule gives, at least 1.

    Args:
        values: the singular values, largest first.
        rule: "energy": the squares of the kept ones are at least the share `amount` of all squares, so that
            the relative error is at most sqrt(1 - amount); "nuclear": the same of the values themselves;
            "ratio": the share `amount` of all ranks; "vbmf": see `vbmf_rank`, which takes no amount.
        amount: above 0, at most 1.
        shape: of the matrix.
    """
    if rule == "ratio":
        return max(1, round(amount * len(values)))
    if rule == "vbmf":
        return max(1, vbmf_rank(values, shape))
    weights = values**2 if rule == "energy" else values
    total = weights.sum()
    if total == 0:
        return 1
    kept = np.cumsum(weights) / total
    return min(len(values), int(np.searchsorted(kept, amount - 1e-12)) + 1)


def vbmf_rank(values: np.ndarray, shape: tuple[int, int]) -> int:
    """The rank of the signal in a noisy matrix, by the analytic solution of variational Bayes.

    Nakajima, Sugiyama, Babacan, Tomioka: "Global analytic solution of fully-observed variational Bayesian
    matrix factorization", JMLR 14 (2013), theorem 2 and corollary 1; the noise variance is the minimiser of
    the free energy, between the bounds that they give (equation 18 ff.).

    Args:
        values: all singular values, largest first.
        shape: of the matrix.
    """
    small, large = sorted(shape)
    alpha = small / large
    squares = values[:small].astype(np.float64) ** 2
    if squares[0] <= 0:
        return 0
    visible = 2.5129 * np.sqrt(alpha)
    edge = (1 + visible) * (1 + alpha / visible)  # of noise, in units of its variance
    most = min(int(np.ceil(small / (1 + alpha))) - 1, small) - 1
    high = squares.sum() / (small * large)
    tail = squares[most + 1 :]
    low = max(tail[0] / (large * edge), tail.mean() / large)
    variance = high
    if low < high:
        found = minimize_scalar(
            _free_energy, args=(squares / large, edge, alpha), bounds=(low, high), method="bounded"
        )
        variance = float(found.x)
    return int(np.sum(squares > large * variance * edge))


def _free_energy(variance: float, squares: np.ndarray, edge: float, alpha: float) -> float:
    """Of the matrix as a function of the noise variance, up to a constant."""
    x = np.maximum(squares / variance, 1e-300)
    signal, noise = x[x > edge], x[x <= edge]
    inner = signal - (1 + alpha)
    tau = 0.5 * (inner + np.sqrt(inner**2 - 4 * alpha))
    energy = (
        np.sum(noise - np.log(noise))
        + np.sum(signal - tau)
        + np.sum(np.log((tau + 1) / signal))
        + alpha * np.sum(np.log(tau / alpha + 1))
    )
    return float(energy)
