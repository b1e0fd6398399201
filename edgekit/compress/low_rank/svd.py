"""A layer as two smaller ones by singular values: `svd`."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.compress.low_rank.layer import Piece, window
from edgekit.compress.low_rank.matrix import Split, split


def channel_matrix(layer: Any) -> np.ndarray:
    """The weights as a matrix (out, in * height * width): each output of what it reads."""
    weight: np.ndarray = layer.weight.detach().double().numpy()
    return weight.reshape(weight.shape[0], -1)


def channel_split(layer: Any, covariance: np.ndarray | None = None) -> Split:
    """The decomposition of `channel_matrix`.

    Args:
        layer: linear, or a convolution without groups.
        covariance: of what an output reads, in the order of the matrix's columns.
    """
    return split(channel_matrix(layer), covariance)


def channel_pieces(layer: Any, found: Split, rank: int) -> list[Piece]:
    """The layer with `rank` outputs, then a mixture of these (Zhang et al. 2015).

    Linear (in -> rank -> out), or a convolution of the same window and a 1x1 convolution.
    """
    import torch

    out, inner = (torch.from_numpy(factor).to(layer.weight.dtype) for factor in found.factors(rank))
    if layer.weight.ndim == 2:
        return [Piece(weight=inner), Piece(weight=out)]
    first = Piece(weight=inner.reshape(rank, *layer.weight.shape[1:]), window=window(layer))
    return [first, Piece(weight=out[:, :, None, None])]


def spatial_split(layer: Any) -> Split:
    """The decomposition of a convolution's weights as a matrix (out * width, in * height)."""
    weight: np.ndarray = layer.weight.detach().double().numpy()
    out, inner, height, width = weight.shape
    return split(weight.transpose(0, 3, 1, 2).reshape(out * width, inner * height))


def spatial_pieces(layer: Any, found: Split, rank: int) -> list[Piece]:
    """A vertical convolution to `rank` channels, then a horizontal one (Jaderberg et al. 2014)."""
    import torch

    out, inner, height, width = layer.weight.shape
    rows, columns = (torch.from_numpy(factor).to(layer.weight.dtype) for factor in found.factors(rank))
    vertical = columns.reshape(rank, inner, height, 1)
    horizontal = rows.reshape(out, width, rank).permute(0, 2, 1)[:, :, None, :]
    return [
        Piece(weight=vertical, window=window(layer).vertical),
        Piece(weight=horizontal, window=window(layer).horizontal),
    ]
