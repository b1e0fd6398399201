"""The batches that a student is trained on: the task's training data, else its calibration calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.compress.calls import Call
from edgekit.errors import BadInput

if TYPE_CHECKING:
    import torch

    Inputs = tuple[torch.Tensor, ...]

TOGETHER = 16  # calls in a batch, at most; there are few calls, and a step for each batch
HELD_OUT = 5  # every so manieth call is judged on, not trained on


def list_or_fresh(make: Any) -> Iterable[Any]:
    """The training batches; an iterator that can be read once only is kept in memory."""
    batches = make()
    return list(batches) if isinstance(batches, Iterator) else batches


def count_batches(batches: Iterable[Any], step: str) -> int:
    """How many batches a pass has.

    Raises:
        BadInput: none.
    """
    count = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
    if not count:
        raise BadInput("the training data has no batch", where=step)
    return count


def split_batch(batch: Any) -> tuple[Inputs, Any]:
    """A batch as (inputs, label): (x, y), (x,), x, or ((x1, x2), y); numpy arrays become tensors."""
    import torch
    from torch.utils import _pytree as pytree

    batch = pytree.tree_map_only(np.ndarray, torch.as_tensor, batch)
    if isinstance(batch, torch.Tensor):
        return (batch,), None
    data, label = (batch[0], batch[1]) if len(batch) > 1 else (batch[0], None)
    inputs = tuple(data) if isinstance(data, list | tuple) else (data,)
    return inputs, label


def as_inputs(call: Call) -> Inputs:
    """A call's arrays as tensors of their own."""
    import torch

    return tuple(torch.from_numpy(np.array(array)) for array in call.values())


@dataclass(frozen=True, kw_only=True)
class CallBatches:
    """Calls as batches without labels, shuffled anew in every pass by torch's global generator.

    Attributes:
        calls: the inputs of each.
        together: how many make a batch; 1 where the network does not take several calls at once.
    """

    calls: Sequence[Inputs]
    together: int

    def __len__(self) -> int:
        return math.ceil(len(self.calls) / self.together)

    def __iter__(self) -> Iterator[tuple[Inputs, None]]:
        import torch

        for part in torch.randperm(len(self.calls)).tensor_split(len(self)):  # none is left over alone
            chosen = [self.calls[index] for index in part.tolist()]
            yield tuple(map(torch.cat, zip(*chosen, strict=True))), None


def batches_of_calls(network: torch.nn.Module, calls: Sequence[Call]) -> CallBatches:
    """Batches of these calls; of several where the network computes for each the same as alone.

    Args:
        network: in evaluation mode.
        calls: at least one.
    """
    inputs = [as_inputs(call) for call in calls]
    together = min(TOGETHER, len(inputs)) if len(inputs) > 1 and _go_together(network, inputs[:2]) else 1
    alike = {tuple((tensor.shape, tensor.dtype) for tensor in one) for one in inputs}
    return CallBatches(calls=inputs, together=together if len(alike) == 1 else 1)


def _go_together(network: torch.nn.Module, calls: Sequence[Inputs]) -> bool:
    import torch
    from torch.utils import _pytree as pytree

    try:
        with torch.no_grad():
            alone = [pytree.tree_leaves(network(*one)) for one in calls]
            both = pytree.tree_leaves(network(*(torch.cat(same) for same in zip(*calls, strict=True))))
            wanted = [torch.cat(same) for same in zip(*alone, strict=True)]
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # of whatever the network's own code makes of twice the batch
    return all(
        one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4)
        for one, other in zip(wanted, both, strict=True)
    )


def held_out(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """The calls to train on, and those to judge on; all of them for both where there are few."""
    if len(calls) < 2 * HELD_OUT:
        return list(calls), list(calls)
    return (
        [call for index, call in enumerate(calls) if index % HELD_OUT],
        [call for index, call in enumerate(calls) if not index % HELD_OUT],
    )
