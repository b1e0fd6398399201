"""A convolution as 1x1, smaller, 1x1: Tucker-2 (Kim et al. 2016), by tensorly."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.compress.low_rank.layer import Piece, window
from edgekit.compress.low_rank.matrix import roots
from edgekit.compress.low_rank.ranks import Rule, rank_for

SWEEPS = 15  # of orthogonal iteration; later ones gain less than a thousandth of the error


def tucker_ranks(layer: Any, rule: Rule, amount: float) -> tuple[int, int]:
    """Ranks of the output and the input channels, each by the singular values of its own unfolding."""
    weight: np.ndarray = layer.weight.detach().double().numpy()
    outputs, inputs = weight.reshape(len(weight), -1), np.moveaxis(weight, 1, 0).reshape(weight.shape[1], -1)
    found = [
        rank_for(np.linalg.svd(unfolding, compute_uv=False), rule, amount, unfolding.shape)
        for unfolding in (outputs, inputs)
    ]
    return found[0], found[1]


def tucker_factors(
    weight: np.ndarray, ranks: tuple[int, int], covariance: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices (out, r_out) and (in, r_in), and the core (r_out, r_in, height, width) between them.

    Args:
        weight: (out, in, height, width).
        ranks: of output and input channels.
        covariance: mean of x x^T over the input channels of all places; the error is then that of the outputs
            as far as neighbouring places are alike. None: the weights' own error.
    """
    from tensorly.decomposition import partial_tucker

    back = None
    if covariance is not None:
        root, back = roots(covariance)
        weight = np.einsum("oihw,ij->ojhw", weight, root)
    (core, (left, right)), _ = partial_tucker(weight, rank=list(ranks), modes=[0, 1], n_iter_max=SWEEPS)
    if back is not None:
        right = back.T @ right
    return left, core, right


def tucker_pieces(layer: Any, ranks: tuple[int, int], covariance: np.ndarray | None = None) -> list[Piece]:
    """Channels to fewer channels, the window on these, and to the channels that were."""
    import torch

    weight: np.ndarray = layer.weight.detach().double().numpy()
    left, core, right = (
        torch.from_numpy(np.ascontiguousarray(factor)).to(layer.weight.dtype)
        for factor in tucker_factors(weight, ranks, covariance)
    )
    return [
        Piece(weight=right.T[:, :, None, None]),
        Piece(weight=core, window=window(layer)),
        Piece(weight=left[:, :, None, None]),
    ]
