"""The gradients of a network on the task's own data, for criteria that rank channels by them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekit.compress.calls import Call
from edgekit.compress.teaching.lesson import SEED
from edgekit.compress.teaching.losses import label_loss
from edgekit.compress.teaching.training import one_thread
from edgekit.compress.teaching.training_data import list_or_fresh, split_batch
from edgekit.compress.teaching.training_state import seed_all
from edgekit.errors import BadInput, first_line
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

    Sample = tuple[tuple[torch.Tensor, ...], Any]

BATCHES = 8  # that the size of gradients is averaged over
SAMPLES = 64  # that their squares are averaged over, each sample on its own


def fill_gradients(
    network: torch.nn.Module, task: Task, calls: list[Call], power: Literal[1, 2], criterion: str
) -> None:
    """Let every parameter's `grad` be the mean size (power 1) or the mean square (2) of its gradients.

    Args:
        network: in evaluation mode; its parameters' gradients are changed, no more.
        task: gradients are those on its training data where there is some.
        calls: calibration data, for a task without training data.
        power: see above.
        criterion: named in refusals.

    Raises:
        BadInput: there is neither, or the network cannot be called with it.
    """
    if task.training is None and not calls:
        raise BadInput(
            f"the criterion {criterion} needs training or calibration data",
            where=f"prune {task.name}",
            todo="add `training_data()` to the task file, or prune by l1",
        )
    try:
        with one_thread():
            _fill(network, list(_samples(task, calls, single=power == 2)), power)
    except Exception as error:
        raise BadInput(
            f"no gradients can be taken on the task's data: {type(error).__name__}: {first_line(error)}",
            where=f"prune {task.name}",
            todo="yield (input, label) batches of tensors that fit the network, or prune by l1",
        ) from error


def _fill(network: torch.nn.Module, samples: list[Sample], power: int) -> None:
    import torch

    parameters = [p.requires_grad_() for p in network.parameters() if p.is_floating_point()]
    sums = [torch.zeros_like(p) for p in parameters]
    generator = torch.Generator().manual_seed(SEED)
    for inputs, label in samples:
        network.zero_grad(set_to_none=True)
        _loss(network(*inputs), label, generator).backward()
        for total, parameter in zip(sums, parameters, strict=True):
            if parameter.grad is not None:
                total.add_(parameter.grad.abs().pow(power))
    for total, parameter in zip(sums, parameters, strict=True):
        parameter.grad = total / len(samples)


def _loss(output: Any, label: Any, generator: torch.Generator) -> Any:
    """The loss against the labels; without, the outputs seen from a random direction.

    The distance to the teacher has no gradient at the teacher itself. Squares of the gradients along random
    directions average to the Gauss-Newton diagonal of that distance (Hutchinson 1989).
    """
    import torch
    from torch.utils import _pytree as pytree

    hard = label_loss(output, label)
    if hard is not None:
        return hard
    leaves = [leaf for leaf in pytree.tree_leaves(output) if torch.is_floating_point(leaf)]
    return torch.stack(
        [(leaf * torch.randn(leaf.shape, generator=generator)).sum() / leaf.numel() ** 0.5 for leaf in leaves]
    ).sum()


def _samples(task: Task, calls: list[Call], *, single: bool) -> Iterator[Sample]:
    """Inputs with labels, from the training data, else calibration calls; `single`: one sample each time."""
    import torch

    if task.training is None:
        for call in calls[:SAMPLES]:
            yield tuple(torch.from_numpy(np.array(array)) for array in call.values()), None
        return
    seed_all(SEED)  # the user's augmentation may draw from the global generator
    batches = (split_batch(batch) for batch in list_or_fresh(task.training))
    if not single:
        yield from islice(batches, BATCHES)
        return
    yield from islice((one for batch in batches for one in _one_by_one(*batch)), SAMPLES)


def _one_by_one(inputs: tuple[torch.Tensor, ...], label: Any) -> Iterator[Sample]:
    """The samples of a batch; the whole batch where its tensors do not agree on how many it holds."""
    import torch

    held = {
        len(tensor) if tensor.ndim else 0 for tensor in (*inputs, label) if isinstance(tensor, torch.Tensor)
    }
    if len(held) != 1:
        yield inputs, label
        return
    for index in range(held.pop()):
        one = slice(index, index + 1)
        yield tuple(tensor[one] for tensor in inputs), label[one] if isinstance(label, torch.Tensor) else None
