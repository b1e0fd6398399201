"""A convolution as a hierarchy of factors: channels, then places, then what these left out (`hlrtf`).

Level 1 is Tucker-2 over the channels. Level 2 splits the core between them into a vertical and a horizontal
convolution. Level 3 adds a low-rank branch for the residual of the first two. Fewer levels leave out the
later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.compress.low_rank.layer import Piece, Window, chain, window
from edgekit.compress.low_rank.matrix import split
from edgekit.compress.low_rank.tucker import tucker_factors

if TYPE_CHECKING:
    import torch


def hierarchical_ranks(
    layer: Any,
    ratios: Sequence[float],
    rank: Callable[[float, int], int],
) -> tuple[int, ...]:
    """The ranks of the levels: of output and input channels; of the core; of the residual.

    Args:
        layer: a convolution.
        ratios: for each level the share of the full rank.
        rank: rounds a wanted rank, given the full one.
    """
    out, inner, height, width = layer.weight.shape
    first = (rank(out * ratios[0], out), rank(inner * ratios[0], inner))
    ranks = list(first)
    if len(ratios) > 1:
        full = min(first[0] * width, first[1] * height)
        ranks.append(rank(full * ratios[1], full))
    if len(ratios) > 2:
        full = min(out, inner * height * width)
        ranks.append(rank(full * ratios[2], full))
    return tuple(ranks)


def hierarchical_module(
    layer: Any, ranks: Sequence[int], covariance: np.ndarray | None = None
) -> torch.nn.Module:
    """The layer of these ranks; two ranks are one level, three two, four three.

    Args:
        layer: a convolution without groups.
        ranks: as `hierarchical_ranks` gives them.
        covariance: of the input channels, as for Tucker.
    """
    import torch

    weight: np.ndarray = layer.weight.detach().double().numpy()
    left, core, right = tucker_factors(weight, (ranks[0], ranks[1]), covariance)
    middle, seen = _core_pieces(layer, core, ranks[2] if len(ranks) > 2 else None)
    dtype = layer.weight.dtype

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)

    pieces = [
        Piece(weight=tensor(right.T)[:, :, None, None]),
        *(Piece(weight=tensor(piece), window=place) for piece, place in middle),
        Piece(weight=tensor(left)[:, :, None, None]),
    ]
    main = chain(pieces, layer)
    if len(ranks) < 4:
        return main
    reached = np.einsum("or,rshw,is->oihw", left, seen, right)
    found = split((weight - reached).reshape(len(weight), -1))
    out, inner = found.factors(ranks[3])
    branch = torch.nn.Sequential(
        Piece(weight=tensor(inner).reshape(ranks[3], *weight.shape[1:]), window=window(layer)).module(None),
        Piece(weight=tensor(out)[:, :, None, None]).module(None),
    )
    from edgekit.compress.low_rank.levels import Levels

    return Levels(main, branch)


def _core_pieces(
    layer: Any, core: np.ndarray, rank: int | None
) -> tuple[list[tuple[np.ndarray, Window]], np.ndarray]:
    """The core's convolutions with their windows, and the core that these compute."""
    if rank is None:
        return [(core, window(layer))], core
    out, inner, height, width = core.shape
    found = split(core.transpose(0, 3, 1, 2).reshape(out * width, inner * height))
    rows, columns = found.factors(rank)
    vertical = columns.reshape(rank, inner, height, 1)
    horizontal = rows.reshape(out, width, rank).transpose(0, 2, 1)[:, :, None, :]
    seen = (rows @ columns).reshape(out, width, inner, height).transpose(0, 2, 3, 1)
    place = window(layer)
    return [(vertical, place.vertical), (horizontal, place.horizontal)], seen


def overlap(network: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Of each hierarchical layer: how far its residual branch repeats its main path, between 0 and 1.

    The squared cosine between the weights that the two compute; added to the loss of fine-tuning it keeps
    the levels from learning the same (the regularisation between levels).
    """
    from edgekit.compress.low_rank.levels import Levels

    for module in network.modules():
        if isinstance(module, Levels):
            yield module.overlap()
