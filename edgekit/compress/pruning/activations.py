"""What channels pass on when real inputs run through a network: its variance, and the rank of its maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.compress.calls import Call, spread
from edgekit.compress.pruning.narrow import heavy_types
from edgekit.task.call import call_module

if TYPE_CHECKING:
    import torch

Groups = tuple[Any, Sequence[Any]]  # of `groups_of`

CALLS = 32
RECTIFIERS = ("(ReluBackward", "(HardtanhBackward", "(ClampBackward")  # as autograd names ReLU and ReLU6


def variances(network: torch.nn.Module, found: Groups, calls: Sequence[Call]) -> Callable[[Any], Any]:
    """Scores a group by the variance of each channel over samples and places, summed over its writers."""

    def variance(value: torch.Tensor, axis: int) -> torch.Tensor:
        return value.transpose(0, axis).flatten(1).var(1)

    return _Summed(network, found, spread(calls, CALLS), variance)


def feature_ranks(network: torch.nn.Module, found: Groups, calls: Sequence[Call]) -> Callable[[Any], Any]:
    """Scores a group by the mean rank of each channel's maps (Lin et al. 2020), summed over its writers.

    Of a layer whose channels are no maps (a linear one, a convolution over time) it says nothing.
    """

    def rank(value: torch.Tensor, _axis: int) -> torch.Tensor | None:
        import torch

        if value.ndim != 4 or min(value.shape[2:]) < 2:
            return None
        ranks: torch.Tensor = torch.linalg.matrix_rank(value).float().mean(0)
        return ranks

    return _Summed(network, found, spread(calls, CALLS), rank)


class _Summed:
    """A score of torch-pruning's kind: each writer of a group on its own, and then their sum.

    A channel is looked at where it leaves its layer's batch norm, if there is one, and as much of it as
    passes the ReLU behind: that is what the readers see.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        found: Groups,
        calls: Sequence[Call],
        measure: Callable[[torch.Tensor, int], torch.Tensor | None],
    ) -> None:
        self.measure = measure
        self.sums: dict[Any, Any] = {}
        graph, groups = found
        self.sites = {writer: _site(graph, writer) for group in groups for writer in writers(group)}
        handles = [
            site.register_forward_hook(self._hook(writer, rectified))
            for writer, (site, rectified) in self.sites.items()
        ]
        try:
            for call in calls:
                call_module(network, tuple(call.values()))
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, writer: Any, rectified: bool) -> Callable[[Any, Any, Any], None]:
        def add(_layer: Any, _inputs: Any, output: Any) -> None:
            value = output.detach().clamp(min=0) if rectified else output.detach()
            values = self.measure(value, value.ndim - 1 if writer.weight.ndim == 2 else 1)
            if values is not None:
                self.sums[writer] = self.sums.get(writer, 0) + values

        return add

    def __call__(self, group: Any) -> torch.Tensor | None:
        """One number for each channel of the group; None where no writer has any."""
        return summed(group, self.sums)


def summed(group: Any, scores: Mapping[Any, torch.Tensor]) -> torch.Tensor | None:
    """The scores of a group's channels, each the sum over the layers that write it, over their mean.

    Args:
        group: of `groups_of`, whole.
        scores: of a layer's own channels.

    Returns:
        None where no writer has any.
    """
    import torch

    total: torch.Tensor | None = None
    for item in group:
        values = scores.get(item.dep.target.module)
        if values is None or item.dep.target.module not in writers([item]) or None in item.root_idxs:
            continue
        if total is None:
            total = torch.zeros(len(group[0].idxs))
        share = values[item.idxs] / values.mean().clamp(min=1e-12)
        total.scatter_add_(0, torch.tensor(item.root_idxs), share.float())
    return total


def writers(group: Any) -> list[Any]:
    """The heavy layers that lose output channels."""
    return [
        item.dep.target.module
        for item in group
        if isinstance(item.dep.target.module, heavy_types()) and "_out_" in item.dep.handler.__name__
    ]


def _site(graph: Any, writer: Any) -> tuple[Any, bool]:
    """Where the layer's channels are looked at, and whether a ReLU follows there."""
    import torch

    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    site = next((module for module in _after(graph, writer) if isinstance(module, norms)), writer)
    behind = [str(module) for module in _after(graph, site)]
    return site, any(word in text for text in behind for word in RECTIFIERS)


def _after(graph: Any, module: Any) -> list[Any]:
    """What reads a module's output."""
    return [node.module for node in graph.module2node[module].outputs]
