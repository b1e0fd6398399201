"""How much each channel matters, by the criteria of the field; coupled channels are scored together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekit.compress.calls import Call
from edgekit.compress.pruning.activations import feature_ranks, summed, variances, writers
from edgekit.compress.pruning.gradients import fill_gradients
from edgekit.compress.pruning.narrow import groups_of
from edgekit.compress.teaching.lesson import SEED
from edgekit.errors import BadInput
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

    Scores = dict[str, torch.Tensor]

Criterion = Literal[
    "l1",
    "l2",
    "taylor",
    "fisher",
    "bn-scale",
    "geometric-median",
    "activation-variance",
    "feature-rank",
    "random",
]


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What the channels of a network matter.

    Attributes:
        scores: one for each channel, by the root of its group; their mean is 1 in every group, so that groups
            can be compared.
        fallback: the roots of groups that the criterion says nothing about; they have the L1 norm's.
    """

    scores: dict[str, np.ndarray]
    fallback: tuple[str, ...] = ()


def importance_of(
    criterion: Criterion,
    model: torch.nn.Module,
    layers: Mapping[str, int],
    task: Task,
    calls: list[Call],
) -> Importance:
    """The importance of every channel of the groups that hold these layers.

    - `l1`, `l2`: the norm of the weights that write and read the channel (Li et al. 2017; over groups, Fang
      et al. 2023).
    - `taylor`: the first-order change of the loss without it, its size averaged over batches (Molchanov et
      al. 2019).
    - `fisher`: the second-order change by the diagonal of the empirical Fisher information (LeCun et al.
      1990, Theis et al. 2018).
    - `bn-scale`: the scale of its batch norm (Liu et al. 2017).
    - `geometric-median`: how far its filter is from all others (He et al. 2019).
    - `activation-variance`: the variance of what it passes on, over samples and places (Molchanov et al. 2017
      compare it).
    - `feature-rank`: the mean rank of its feature maps (Lin et al. 2020).
    - `random`: the control.

    Args:
        criterion: see above.
        model: left as it was.
        layers: of `narrowable`.
        task: its training data gives gradients, where there is some.
        calls: calibration data.

    Raises:
        BadInput: the criterion needs data that the task does not have, or cannot be used on it.
    """
    import torch
    import torch_pruning as tp

    network = copy.deepcopy(model).eval()
    inputs = tuple(torch.from_numpy(array.copy()) for array in task.example)
    graph, groups = groups_of(network, inputs, layers)
    names = {module: name for name, module in network.named_modules()}

    def filled(score: Any, power: Literal[1, 2]) -> Any:
        fill_gradients(network, task, calls, power, criterion)
        return score

    ways: dict[Criterion, Callable[[], Callable[[Any], Any]]] = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": lambda: filled(tp.importance.GroupTaylorImportance(), 1),
        # of its own accumulation torch-pruning 1.6.1 keeps the last sample only; it is done here instead
        "fisher": lambda: filled(tp.importance.GroupHessianImportance(), 2),
        "bn-scale": tp.importance.BNScaleImportance,
        # torch-pruning 1.6.1's FPGMImportance fails where a grouped convolution reads the channels
        "geometric-median": lambda: _by_distance,
        "activation-variance": lambda: variances(network, (graph, groups), _needed(calls, criterion, task)),
        "feature-rank": lambda: feature_ranks(network, (graph, groups), _needed(calls, criterion, task)),
        "random": _Random,
    }
    score, plain = ways[criterion](), tp.importance.GroupMagnitudeImportance(p=1)
    found: dict[str, np.ndarray] = {}
    fallback = []
    for group in groups:
        root = group[0].dep.target.module
        values = score(group)
        if values is None:
            values = plain(group)
            fallback.append(names[root])
        found[names[root]] = _on_one_scale(values, graph.get_out_channels(root))
    return Importance(scores=found, fallback=tuple(fallback))


def _on_one_scale(values: torch.Tensor | None, width: int) -> np.ndarray:
    """With mean 1; all alike where nothing tells the channels apart."""
    array = np.ones(width) if values is None else values.detach().double().numpy()
    mean = array.mean()
    return array / mean if np.isfinite(mean) and mean > 0 else np.ones(width)


def _by_distance(group: Any) -> torch.Tensor | None:
    """How far each filter is from all others of its layer: near the geometric median it can be replaced."""
    import torch

    filters = {layer: layer.weight.detach().flatten(1) for layer in writers(group)}
    return summed(group, {layer: torch.cdist(rows, rows).sum(1) for layer, rows in filters.items()})


class _Random:
    """Numbers from a fixed seed, other ones for every group."""

    def __init__(self) -> None:
        import torch

        self.generator = torch.Generator().manual_seed(SEED)

    def __call__(self, group: Any) -> torch.Tensor:
        import torch

        return torch.rand(len(group[0].idxs), generator=self.generator)


def _needed(calls: list[Call], criterion: Criterion, task: Task) -> list[Call]:
    if not calls:
        raise BadInput(
            f"the criterion {criterion} needs calibration data",
            where=f"prune {task.name}",
            todo="add `calibration_data()` to the task file, or prune by l1",
        )
    return calls
