"""What a layer could become: each decomposition at some size, with its error on real inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgekit.compress.low_rank import svd
from edgekit.compress.low_rank.cp import cp_pieces
from edgekit.compress.low_rank.hierarchical import hierarchical_module, hierarchical_ranks
from edgekit.compress.low_rank.layer import chain, is_pointwise
from edgekit.compress.low_rank.observe import Seen, output_error
from edgekit.compress.low_rank.ranks import Rule, rank_for
from edgekit.compress.low_rank.tucker import tucker_pieces, tucker_ranks

if TYPE_CHECKING:
    import torch

Method = Literal["svd", "spatial-svd", "tucker", "cp", "hlrtf"]
HALVINGS = 6  # of the interval in which the share for an error lies
MOST_CP_WEIGHTS = 20_000  # alternating least squares over more takes minutes


@dataclass(frozen=True, kw_only=True)
class Option:
    """A layer's possible successor.

    Attributes:
        method: how it was made.
        ranks: of its factors.
        module: in evaluation mode.
        error: of its outputs on the samples, relative.
    """

    method: Method
    ranks: tuple[int, ...]
    module: torch.nn.Module
    error: float


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What all options of one step have in common.

    Attributes:
        least: the smallest rank.
        multiple: ranks are rounded up to a multiple of this.
        levels: of `hlrtf`, the share of the full rank at each level.
        whiten: let the error of the outputs on real inputs count, where there are some, not the weights'.
    """

    least: int = 1
    multiple: int = 1
    levels: tuple[float, ...] = (0.5, 0.5, 0.1)
    whiten: bool = True

    def rank(self, wanted: float, full: int) -> int:
        """The rank inside the limits that is nearest above `wanted`."""
        rounded = -(-max(round(wanted), self.least, 1) // self.multiple) * self.multiple
        return min(full, rounded)


def fitting(layer: Any, methods: Sequence[Method]) -> list[Method]:
    """The methods that can treat this layer: a linear one and a 1x1 convolution have channels only."""
    if is_pointwise(layer):
        return [method for method in methods if method == "svd"]
    weights = layer.weight.numel()
    return [method for method in methods if method != "cp" or weights <= MOST_CP_WEIGHTS]


def at_share(layer: Any, method: Method, share: float, seen: Seen, wishes: Wishes) -> Option:
    """The layer by one method with about this share of its full rank, at every level alike.

    Args:
        layer: linear, or a convolution without groups, that the method fits.
        method: one of `fitting`.
        share: above 0, at most 1; at 1 the layer is reproduced, but for `cp`, which approaches it.
        seen: what the layer is given.
        wishes: see there.
    """
    channels = seen.channels if wishes.whiten else None
    if method == "svd":
        found = svd.channel_split(layer, seen.windows if wishes.whiten else None)
        ranks: tuple[int, ...] = (wishes.rank(share * len(found.values), len(found.values)),)
        return _option(layer, method, ranks, chain(svd.channel_pieces(layer, found, ranks[0]), layer), seen)
    if method == "spatial-svd":
        found = svd.spatial_split(layer)
        ranks = (wishes.rank(share * len(found.values), len(found.values)),)
        return _option(layer, method, ranks, chain(svd.spatial_pieces(layer, found, ranks[0]), layer), seen)
    out, inner = layer.weight.shape[:2]
    if method == "tucker":
        pair = (wishes.rank(share * out, out), wishes.rank(share * inner, inner))
        return _option(layer, method, pair, chain(tucker_pieces(layer, pair, channels), layer), seen)
    if method == "cp":
        most = 4 * max(out, inner)
        ranks = (wishes.rank(share * most, most),)
        return _option(layer, method, ranks, chain(cp_pieces(layer, ranks[0]), layer), seen)
    ranks = hierarchical_ranks(layer, [min(1.0, level * share * 2) for level in wishes.levels], wishes.rank)
    return _option(layer, method, ranks, hierarchical_module(layer, ranks, channels), seen)


def at_error(layer: Any, method: Method, error: float, seen: Seen, wishes: Wishes) -> Option:
    """The smallest of `at_share` whose error is at most `error`; the largest where none is."""
    low, high = 0.0, 1.0
    best = at_share(layer, method, 1.0, seen, wishes)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = at_share(layer, method, middle, seen, wishes)
        if tried.error <= error:
            best, high = tried, middle
        else:
            low = middle
    return best


def by_rule(layer: Any, method: Method, rule: Rule, amount: float, seen: Seen, wishes: Wishes) -> Option:
    """The layer by one method at the rank that a rule gives.

    `svd` and `tucker` follow it by the singular values of their own matrices; the others take the size at
    which their error is that of `svd` by the rule, or, of rule "ratio", the amount as the share.
    """
    if rule == "ratio":
        return at_share(layer, method, amount, seen, wishes)
    if method == "tucker":
        out, inner = layer.weight.shape[:2]
        wanted = tucker_ranks(layer, rule, amount)
        pair = (wishes.rank(wanted[0], out), wishes.rank(wanted[1], inner))
        channels = seen.channels if wishes.whiten else None
        return _option(layer, method, pair, chain(tucker_pieces(layer, pair, channels), layer), seen)
    found = svd.channel_split(layer, seen.windows if wishes.whiten else None)
    full = len(found.values)
    rank = wishes.rank(rank_for(found.values, rule, amount, svd.channel_matrix(layer).shape), full)
    plain = _option(layer, "svd", (rank,), chain(svd.channel_pieces(layer, found, rank), layer), seen)
    return plain if method == "svd" else at_error(layer, method, plain.error, seen, wishes)


def _option(
    layer: Any, method: Method, ranks: tuple[int, ...], module: torch.nn.Module, seen: Seen
) -> Option:
    error = output_error(layer, module, seen.samples)
    return Option(method=method, ranks=ranks, module=module, error=error)
