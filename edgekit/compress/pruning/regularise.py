"""Train a network so that it can lose channels or rank: what is to go is made small first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgekit.compress.context import Context
from edgekit.compress.pruning.narrow import heavy_types
from edgekit.compress.teaching.lesson import Lesson
from edgekit.compress.teaching.losses import DistillationLoss, classifies
from edgekit.compress.teaching.training import channels_last, contiguous, train
from edgekit.compress.teaching.training_options import Training
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

Norm = Literal["group-norm", "nuclear-norm"]
OPTIONS = Training(learning_rate=0.01, schedule="cosine", weight_decay=0)


@dataclass(frozen=True, kw_only=True)
class Pressure:
    """What is kept small, and how.

    Attributes:
        norm: `group-norm`: of each channel's weights in all layers of its group, the more the less it matters
            (Fang et al. 2023, torch-pruning's GroupNormPruner); `nuclear-norm`: the sum of the singular
            values of each weight matrix, which lets filters become combinations of others.
        epochs: passes over the training data.
        weight: of the norm's gradient beside the loss's.
    """

    norm: Norm
    epochs: int
    weight: float


def regularised(
    model: torch.nn.Module,
    layers: Mapping[str, int],
    task: Task,
    context: Context,
    pressure: Pressure,
) -> torch.nn.Module:
    """A copy trained on the task's data while a norm is kept small beside the loss.

    Args:
        model: left as it was.
        layers: of `narrowable`; the others are trained as usual.
        task: with training data.
        context: shows how far it is.
        pressure: see there.

    Raises:
        BadInput: there is no training data, or none that the network can be trained on.
    """
    import torch

    student = channels_last(model).train()
    example = tuple(torch.from_numpy(array.copy()) for array in task.example)
    press = (
        _group_norm(student, layers, example, pressure.weight)
        if pressure.norm == "group-norm"
        else _nuclear_norm(student, pressure.weight)
    )

    def optimiser(parameters: Iterable[torch.nn.Parameter], steps: int) -> tuple[Any, Any]:
        made, schedule = OPTIONS.optimiser_of(parameters, steps)
        made.register_step_pre_hook(lambda *_: press())
        return made, schedule

    lesson = Lesson(
        step="prune",
        epochs=pressure.epochs,
        loss=DistillationLoss(classifies=classifies(model, example)),
        optimiser=optimiser,
        detail=lambda text: context.detail(f"{pressure.norm}: {text}"),
    )
    train(student, task, lesson)
    return contiguous(student).eval()


def _group_norm(
    student: torch.nn.Module, layers: Mapping[str, int], example: tuple[torch.Tensor, ...], weight: float
) -> Callable[[], None]:
    import torch_pruning as tp

    others = [m for name, m in student.named_modules() if isinstance(m, heavy_types()) and name not in layers]
    pruner = tp.pruner.GroupNormPruner(
        student.eval(),
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        reg=weight,
        ignored_layers=others,
    )
    student.train()
    return lambda: pruner.regularize(student)


def _nuclear_norm(student: torch.nn.Module, weight: float) -> Callable[[], None]:
    """Adds the norm's gradient, which is U V^T of the matrix's singular value decomposition."""
    import torch

    layers: list[Any] = [layer for layer in student.modules() if isinstance(layer, heavy_types())]
    matrices = [layer.weight for layer in layers if min(layer.weight.shape[:2]) > 1]  # depthwise: no rank

    def press() -> None:
        with torch.no_grad():
            for matrix in matrices:
                if matrix.grad is not None:
                    left, _, right = torch.linalg.svd(matrix.flatten(1), full_matrices=False)
                    matrix.grad += weight * (left @ right).reshape(matrix.shape)

    return press
