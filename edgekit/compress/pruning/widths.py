"""How wide each layer stays for a given share of the work, without making any network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.compress.pruning.narrow import groups_of, heavy_types

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers that lose output channels together: those of a residual stream, say.

    Attributes:
        root: the name of the module that torch-pruning begins the group with.
        layers: the names of those that write the channels and hold the work.
        width: output channels of each.
        parts: the channels lie in this many equal parts, of which each loses as many (grouped convolutions).
        step: widths are a multiple of this, or all there is.
    """

    root: str
    layers: tuple[str, ...]
    width: int
    parts: int = 1
    step: int = 1

    def rounded(self, count: int) -> int:
        """The allowed width that is nearest to `count`; half a step is rounded up."""
        if count >= self.width:
            return self.width
        return min(self.width, max(1, (2 * count + self.step) // (2 * self.step)) * self.step)

    def wider(self, kept: int) -> int:
        """The next allowed width above `kept`; the whole width above the last."""
        return min(self.width, (kept // self.step + 1) * self.step)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The multiply-accumulates of a network as a function of its groups' widths.

    Attributes:
        macs: of each layer as it is.
        written, read: for each layer, by the root of a group, the share of its output (input) channels that
            are the group's.
    """

    macs: Mapping[str, int]
    written: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    read: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def at(self, lost: Mapping[str, float]) -> float:
        """Of the whole network when each group, by its root, has lost this share of its channels."""
        return sum(
            macs * self._left(self.written, name, lost) * self._left(self.read, name, lost)
            for name, macs in self.macs.items()
        )

    @staticmethod
    def _left(shares: Mapping[str, Mapping[str, float]], layer: str, lost: Mapping[str, float]) -> float:
        return 1 - sum(share * lost.get(root, 0.0) for root, share in shares.get(layer, {}).items())


def look(
    model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], layers: Mapping[str, int], step: int
) -> tuple[list[Group], Work]:
    """The groups of a network, and its work.

    Args:
        model: left as it was.
        inputs: one example call.
        layers: of `narrowable`.
        step: kept channels are a multiple of this.
    """
    graph, found = groups_of(model, inputs, layers)
    names = {module: name for name, module in model.named_modules()}
    groups = [_group(graph, group, names, step) for group in found]
    macs = macs_by_layer(model, inputs)
    written: dict[str, dict[str, float]] = {name: {} for name in macs}
    read: dict[str, dict[str, float]] = {name: {} for name in macs}
    for group, members in zip(groups, found, strict=True):
        for (module, is_out), count in _touched(graph, members).items():
            shares, width = (written, _out(module)) if is_out else (read, _in(module))
            if names[module] in shares:
                shares[names[module]][group.root] = count / width
    return groups, Work(macs=macs, written=written, read=read)


def widest(
    groups: Sequence[Group], scores: Mapping[str, np.ndarray], work: Work, most: float
) -> dict[str, int] | None:
    """The widths, by the group's root, at which the work is at most `most` and none could be a step wider.

    Widths come down together, channel by channel in the order of `scores`; what is left below `most` is given
    back where the channels matter most.

    Args:
        groups: of `look`.
        scores: the importance of each of a group's channels, those of all groups on one scale.
        work: of `look`.
        most: multiply-accumulates.

    Returns:
        None where even the narrowest widths have more work.
    """
    ordered = {group.root: np.sort(_by_part(group, scores[group.root]))[::-1] for group in groups}
    limits = np.unique(np.concatenate(list(ordered.values())))

    def at(index: int) -> dict[str, int]:
        if index == 0:
            return {group.root: group.width for group in groups}
        above = {root: int((values > limits[index - 1]).sum()) for root, values in ordered.items()}
        return {group.root: group.rounded(above[group.root] * group.parts) for group in groups}

    low, high = 0, len(limits)
    if cost(groups, work, at(high)) > most:
        return None
    while low < high:
        middle = (low + high) // 2
        if cost(groups, work, at(middle)) > most:
            low = middle + 1
        else:
            high = middle
    return _filled(groups, ordered, work, most, at(high))


def narrowest(groups: Sequence[Group]) -> dict[str, int]:
    """The least widths, by the root of the group."""
    return {group.root: group.rounded(0) for group in groups}


def cost(groups: Sequence[Group], work: Work, kept: Mapping[str, int]) -> float:
    """Multiply-accumulates with these widths, by the root of the group."""
    return work.at({group.root: 1 - kept[group.root] / group.width for group in groups})


def by_rank(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores that let all groups become narrower by one factor: the place of a channel in its own group."""
    places = {}
    for root, values in scores.items():
        places[root] = np.empty(len(values))
        places[root][np.argsort(values, kind="stable")] = (np.arange(len(values)) + 0.5) / len(values)
    return places


def macs_by_layer(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, int]:
    """Multiply-accumulates of each convolution and linear layer in one call, by name."""
    import torch

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, heavy_types())}
    found = dict.fromkeys(layers, 0)
    names = {layer: name for name, layer in layers.items()}

    def add(layer: Any, _inputs: Any, output: Any) -> None:
        found[names[layer]] += output.numel() * layer.weight[0].numel()

    handles = [layer.register_forward_hook(add) for layer in layers.values()]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _filled(
    groups: Sequence[Group], ordered: Mapping[str, np.ndarray], work: Work, most: float, kept: dict[str, int]
) -> dict[str, int]:
    """Groups a step wider, those first whose next channels matter most, as long as one fits."""

    def next_score(group: Group) -> float:
        start, end = kept[group.root], group.wider(kept[group.root])
        return float(ordered[group.root][start // group.parts : -(-end // group.parts)].mean())

    while True:
        for group in sorted((g for g in groups if kept[g.root] < g.width), key=next_score, reverse=True):
            tried = {**kept, group.root: group.wider(kept[group.root])}
            if cost(groups, work, tried) <= most:
                kept = tried
                break
        else:
            return kept


def _by_part(group: Group, scores: np.ndarray) -> np.ndarray:
    """The scores of the channels that go together, one from each part, as torch-pruning averages them."""
    found: np.ndarray = scores.reshape(group.parts, -1).mean(0)
    return found


def _group(graph: Any, members: Any, names: Mapping[Any, str], step: int) -> Group:
    root = members[0].dep.target.module
    width = int(graph.get_out_channels(root))
    parts = max(_parts(graph, members), default=1)
    writers = [i.dep.target.module for i in members if graph.is_out_channel_pruning_fn(i.dep.handler)]
    together = lcm(step, parts)
    return Group(
        root=names[root],
        layers=tuple(dict.fromkeys(names[m] for m in writers if isinstance(m, heavy_types()))),
        width=width,
        parts=parts,
        step=min(together, width),
    )


def _parts(graph: Any, members: Any) -> Iterator[int]:
    import torch

    for item in members:
        module = item.dep.target.module
        pruner = graph.get_pruner_of_module(module) if isinstance(module, torch.nn.Module) else None
        depthwise = getattr(module, "groups", 1) == getattr(module, "out_channels", None)
        if pruner is None or depthwise:  # each channel of a depthwise convolution is a part of its own
            continue
        is_out = graph.is_out_channel_pruning_fn(item.dep.handler)
        yield int(pruner.get_out_channel_groups(module) if is_out else pruner.get_in_channel_groups(module))


def _touched(graph: Any, members: Any) -> dict[tuple[Any, bool], int]:
    """The channels of each heavy layer that belong to a group, of its outputs (True) or inputs (False)."""
    found: dict[tuple[Any, bool], int] = {}
    for item in members:
        module = item.dep.target.module
        if isinstance(module, heavy_types()):
            key = (module, bool(graph.is_out_channel_pruning_fn(item.dep.handler)))
            found[key] = max(found.get(key, 0), len(item.idxs))
    return found


def _out(layer: Any) -> int:
    return int(layer.weight.shape[0])


def _in(layer: Any) -> int:
    return int(layer.weight.shape[1] * getattr(layer, "groups", 1))
