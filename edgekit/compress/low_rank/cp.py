"""A convolution as 1x1, two depthwise lines, 1x1: canonical polyadic (Lebedev et al. 2015), by tensorly."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.compress.low_rank.layer import Piece, window

SWEEPS = 25
SEED = 0


def cp_pieces(layer: Any, rank: int) -> list[Piece]:
    """Channels to `rank`, a vertical and a horizontal depthwise line, and to the channels that were."""
    import torch
    from tensorly.decomposition import parafac

    weight: np.ndarray = layer.weight.detach().double().numpy()
    # tensorly's start by singular values needs as many of them as there are components.
    start = "svd" if rank <= min(weight.size // side for side in weight.shape) else "random"
    scales, factors = parafac(weight, rank=rank, n_iter_max=SWEEPS, init=start, tol=1e-6, random_state=SEED)
    factors = [np.array(factor) for factor in factors]
    factors[0] = factors[0] * scales
    _balance(factors)
    outputs, inputs, rows, columns = (torch.from_numpy(factor).to(layer.weight.dtype) for factor in factors)
    place = window(layer)
    return [
        Piece(weight=inputs.T[:, :, None, None]),
        Piece(weight=rows.T[:, None, :, None], window=place.vertical, groups=rank),
        Piece(weight=columns.T[:, None, None, :], window=place.horizontal, groups=rank),
        Piece(weight=outputs[:, :, None, None]),
    ]


def _balance(factors: list[np.ndarray]) -> None:
    """Give the four vectors of each component one length: with all of it in one, training fares badly."""
    lengths = np.array([np.linalg.norm(factor, axis=0) for factor in factors])
    lengths = np.maximum(lengths, 1e-30)
    common = np.prod(lengths, axis=0) ** (1 / len(factors))
    for number, length in enumerate(lengths):
        factors[number] = factors[number] * (common / length)
