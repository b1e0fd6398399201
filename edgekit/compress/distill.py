"""The step `distill`: fine-tune with the original network as the teacher, to recover what pruning cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.compress.context import Context
from edgekit.compress.training import DistillationLoss, Lesson, channels_last, contiguous, train
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch


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

        Raises:
            BadInput: the task has no training data, or none that the network can be trained on; the loss
                stops being finite.
        """
        student = channels_last(model).train()
        lesson = Lesson(
            step="distill",
            epochs=self.epochs,
            loss=DistillationLoss(self.temperature, self.alpha),
            optimiser=self._optimiser,
            after=lambda done, loss: context.detail(f"epoch {done} of {self.epochs}, loss {loss:.3f}"),
        )
        train(student, task, lesson)
        return contiguous(student).eval()

    def _optimiser(self, parameters: Iterable[torch.nn.Parameter], steps: int) -> tuple[Any, Any]:
        import torch

        optimiser = torch.optim.SGD(
            parameters, self.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        total = max(steps + 1, 6)  # a rise of 20 % of 5 steps has no length, by which torch divides
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.learning_rate, total_steps=total, pct_start=0.2
        )
        return optimiser, schedule
