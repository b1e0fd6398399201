"""How a student is trained, as a recipe says it: shared by every step that trains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

USUAL_RATE = {"sgd": 0.05, "adamw": 1e-3, "adam": 1e-3}


class Training(BaseModel):
    """The options of fine-tuning; the defaults are for a CPU and a few epochs after pruning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=6, ge=1, le=1000, description="passes over the data")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="the highest of the schedule; left out: 0.05 of sgd, 0.001 of adam and adamw",
    )
    optimiser: Literal["sgd", "adamw", "adam"] = Field(
        default="sgd", description="sgd has Nesterov momentum 0.9"
    )
    schedule: Literal["one-cycle", "cosine", "step", "constant"] = Field(
        default="one-cycle",
        description="of the learning rate; step divides it by 10 after half and after three quarters",
    )
    weight_decay: float = Field(default=5e-4, ge=0, lt=1, description="of the weights towards zero")
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many epochs that come no closer to the original"
    )
    time_limit: float | None = Field(
        default=None, gt=0, description="seconds; stops after the batch that is running"
    )
    unfreeze: int = Field(
        default=0,
        ge=0,
        description="epochs in which layers join in, from the last back; then all are trained",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="compute blocks twice instead of keeping what is inside them: memory for time",
    )
    mixed_precision: bool = Field(
        default=True, description="bfloat16, on a GPU that has it; nothing on a CPU"
    )
    data: Literal["training", "calibration"] = Field(
        default="training", description="what is trained on; calibration data has no labels"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of everything that is drawn")

    def optimiser_of(self, parameters: Iterable[torch.nn.Parameter], steps: int) -> tuple[Any, Any]:
        """The optimiser and its schedule, which is stepped after it.

        Args:
            parameters: to train.
            steps: of the whole training.
        """
        import torch

        rate = self.learning_rate or USUAL_RATE[self.optimiser]
        kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
        made: Any = (
            torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True, weight_decay=self.weight_decay)
            if self.optimiser == "sgd"
            else kinds[self.optimiser](parameters, rate, weight_decay=self.weight_decay)
        )
        return made, self._schedule_of(made, rate, steps)

    def _schedule_of(self, optimiser: Any, rate: float, steps: int) -> Any:
        from torch.optim import lr_scheduler

        if self.schedule == "one-cycle":
            total = max(steps + 1, 6)  # a rise of 20 % of 5 steps has no length, by which torch divides
            return lr_scheduler.OneCycleLR(optimiser, rate, total_steps=total, pct_start=0.2)
        if self.schedule == "cosine":
            return lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
        places = [steps // 2, steps * 3 // 4] if self.schedule == "step" else []
        return lr_scheduler.MultiStepLR(optimiser, places, gamma=0.1)
