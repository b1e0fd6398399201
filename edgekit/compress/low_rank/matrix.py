"""The best matrix of a rank, in the sense of the weights or of what the data make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_VARIANCE = 1e-6  # of the largest: directions that the data never use are kept from exploding


@dataclass(frozen=True, kw_only=True)
class Split:
    """The singular value decomposition of `matrix @ root`, of which any rank can be taken.

    Attributes:
        left, values, right: its factors, values largest first.
        back: the inverse of `root`, None where the root is the identity.
    """

    left: np.ndarray
    values: np.ndarray
    right: np.ndarray
    back: np.ndarray | None

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Two matrices (out, rank) and (rank, in) whose product is the best one of that rank."""
        share = np.sqrt(self.values[:rank])
        right = self.right[:rank] if self.back is None else self.right[:rank] @ self.back
        return self.left[:, :rank] * share, right * share[:, None]

    def error(self, rank: int) -> float:
        """What the rank leaves out: the Frobenius norm of the rest over that of the whole (Eckart-Young)."""
        squares = self.values.astype(np.float64) ** 2
        total = squares.sum()
        return float(np.sqrt(squares[rank:].sum() / total)) if total > 0 else 0.0


def split(matrix: np.ndarray, covariance: np.ndarray | None = None) -> Split:
    """Decompose a matrix (out, in) so that a truncation keeps its product with real inputs.

    With the inputs' second moment C = root @ root.T, the error of the outputs is the Frobenius norm of
    (W - W') @ root, and truncating the singular values of W @ root is the best that a rank can do (as in
    SVD-LLM, Wang et al. 2024, and in the generalised SVD of Zhang et al. 2015).

    Args:
        matrix: the weights.
        covariance: mean of x x^T over inputs x, (in, in); None: the weights' own error counts.
    """
    weights = matrix.astype(np.float64)
    back = None
    if covariance is not None:
        root, back = roots(covariance)
        weights = weights @ root
    left, values, right = np.linalg.svd(weights, full_matrices=False)
    return Split(left=left, values=values, right=right, back=back)


def roots(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symmetric square root of a covariance, and its inverse."""
    variances, directions = np.linalg.eigh((covariance + covariance.T).astype(np.float64) / 2)
    largest = float(variances[-1])
    if largest <= 0:
        return np.eye(len(covariance)), np.eye(len(covariance))
    scales = np.sqrt(np.maximum(variances, LEAST_VARIANCE * largest))
    return (directions * scales) @ directions.T, (directions / scales) @ directions.T
