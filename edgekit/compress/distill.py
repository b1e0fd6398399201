"""The step `distill`: fine-tune with the original network as the teacher, to recover what pruning cost."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgekit.compress.context import Context
from edgekit.errors import BadInput, first_line
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

SEED = 0


class Distill(BaseModel):
    """Knowledge distillation (Hinton et al. 2015) from the task's own network."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["distill"] = "distill"
    epochs: int = Field(6, ge=1, le=1000, description="passes over the training data")
    learning_rate: float = Field(0.05, gt=0, lt=1, description="peak of the one-cycle schedule")
    temperature: float = Field(3.0, gt=0, description="softens both distributions")
    alpha: float = Field(0.7, ge=0, le=1, description="weight of the teacher against the labels")

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """A fine-tuned copy: SGD with Nesterov momentum on a one-cycle schedule, one thread, fixed seed.

        The loss on outputs of shape (batch, classes) is the teacher's softened distribution mixed with the
        labels; on any other output it is the mean squared distance to the teacher's.

        Raises:
            BadInput: the task has no training data, or none that the network can be trained on; the loss
                stops being finite.
        """
        import torch

        if task.training is None or not isinstance(task.model, torch.nn.Module):
            raise BadInput(
                "distillation needs training data and a torch network",
                where=f"distill {task.name}",
                todo="add `training_data()` to the task file, or give --training",
            )
        torch.manual_seed(SEED)
        np.random.seed(SEED)  # the user's augmentation may draw from the global generator
        try:
            with _one_thread():
                return self._train(model, task.model, list_or_fresh(task.training), context)
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(
                f"cannot be trained on the training data: {type(error).__name__}: {first_line(error)}",
                where=f"distill {task.name}",
                todo="yield (input, label) batches of tensors that fit the network",
            ) from error

    def _train(
        self, model: torch.nn.Module, original: torch.nn.Module, batches: Iterable[Any], context: Context
    ) -> torch.nn.Module:
        import torch

        student, teacher = _channels_last(model).train(), _channels_last(original).eval()
        optimiser = torch.optim.SGD(
            student.parameters(), self.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        steps = self.epochs * _count(batches)
        total = max(steps + 1, 6)  # a rise of 20 % of 5 steps has no length, by which torch divides
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.learning_rate, total_steps=total, pct_start=0.2
        )
        for epoch in range(self.epochs):
            for inputs, label in map(_split, batches):
                loss = self._loss(student(*inputs), _frozen(teacher, inputs), label)
                if not torch.isfinite(loss):
                    raise BadInput(
                        "the loss is no longer finite", where="distill", todo="lower learning_rate"
                    )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
            context.detail(f"epoch {epoch + 1} of {self.epochs}, loss {loss.item():.3f}")
        for parameter in student.parameters():
            parameter.data = parameter.data.contiguous()
        return student.eval()

    def _loss(self, output: Any, expected: Any, label: Any) -> torch.Tensor:
        import torch
        from torch.nn import functional as F  # noqa: N812 - its usual name
        from torch.utils import _pytree as pytree

        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            pairs = zip(pytree.tree_leaves(output), pytree.tree_leaves(expected), strict=True)
            return torch.stack([F.mse_loss(a, b) for a, b in pairs if torch.is_floating_point(a)]).sum()
        t = self.temperature
        soft = (
            F.kl_div(F.log_softmax(output / t, 1), F.softmax(expected / t, 1), reduction="batchmean") * t * t
        )
        if not isinstance(label, torch.Tensor) or label.dtype != torch.int64 or label.ndim != 1:
            return soft
        return self.alpha * soft + (1 - self.alpha) * F.cross_entropy(output, label)


def _channels_last(model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose weights are laid out so that training on a CPU is up to 1.8 times faster."""
    import torch

    moved = copy.deepcopy(model)
    for parameter in moved.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return moved


def list_or_fresh(make: Any) -> Iterable[Any]:
    """The training batches; an iterator that can be read once only is kept in memory."""
    batches = make()
    return list(batches) if isinstance(batches, Iterator) else batches


def _count(batches: Iterable[Any]) -> int:
    count = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
    if not count:
        raise BadInput("the training data has no batch", where="distill")
    return count


def _split(batch: Any) -> tuple[tuple[torch.Tensor, ...], Any]:
    """A batch as (inputs, label): (x, y), (x,), x, or ((x1, x2), y); numpy arrays become tensors."""
    import torch
    from torch.utils import _pytree as pytree

    batch = pytree.tree_map_only(np.ndarray, torch.as_tensor, batch)
    if isinstance(batch, torch.Tensor):
        return (batch,), None
    data, label = (batch[0], batch[1]) if len(batch) > 1 else (batch[0], None)
    inputs = tuple(data) if isinstance(data, list | tuple) else (data,)
    return inputs, label


def _frozen(teacher: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    import torch

    with torch.no_grad():
        return teacher(*inputs)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Two torch threads on a shared two-core machine are several times slower than one (barrier spinning)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
