"""What a training is told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.progress import Detail

if TYPE_CHECKING:
    import torch

    Inputs = tuple[torch.Tensor, ...]

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How a student is trained.

    Attributes:
        step: the name of the compression step, for refusals.
        epochs: passes over the training data.
        loss: of the student's output against the teacher's and the label.
        optimiser: made of the student's parameters and the number of all steps; the schedule after it is
            stepped with it.
        after: is given the number of epochs done and the last loss.
        batches: to train on; the task's training data when left out.
        teacher: in evaluation mode; a copy of the task's network when left out.
        most_gradient: the norm that gradients are cut to; None cuts nothing.
        is_taught: whether the loss looks at the teacher's output at all; else it is given None.
        adapters: modules that are trained with the student and thrown away.
        keep_best: whether the weights that come closest to the original are kept, those of the start
            included; judged on `judged`, else on the first batches.
        judged: inputs of single calls.
        patience: epochs without a better one, after which it stops.
        time_limit: seconds; it stops after the batch that is running.
        unfreeze: epochs in which layers join in, from the last back.
        gradient_checkpointing: compute blocks twice instead of keeping what is inside them.
        mixed_precision: bfloat16, where the student is on a GPU that has it.
        seed: of all that is drawn.
        detail: shows how far it is.
        unfinished: the folder where the state is kept after each epoch, so that a killed training goes on
            there; it is the caller's to remove.
        key: with the weights of all that take part, tells this training from others in that folder.
    """

    step: str
    epochs: int
    loss: Callable[[Any, Any, Any], torch.Tensor]
    optimiser: Callable[[Iterable[torch.nn.Parameter], int], tuple[Any, Any]]
    after: Callable[[int, float], None] = lambda _done, _loss: None
    batches: Iterable[Any] | None = None
    teacher: torch.nn.Module | None = None
    most_gradient: float | None = None
    is_taught: bool = True
    adapters: Sequence[torch.nn.Module] = ()
    keep_best: bool = False
    judged: Sequence[Inputs] = ()
    patience: int | None = None
    time_limit: float | None = None
    unfreeze: int = 0
    gradient_checkpointing: bool = False
    mixed_precision: bool = False
    seed: int = SEED
    detail: Detail = lambda _text: None
    unfinished: Path | None = None
    key: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a training went.

    Attributes:
        epochs: that were begun, those before it was killed included.
        kept: the epoch whose weights were kept, 0 for the start.
        start, end: how close to the original, in words, the start was and what was kept is; empty where
            nothing was judged.
        stopped: why it ended early; empty where it did not.
        seconds: that it took.
    """

    epochs: int
    kept: int
    start: str
    end: str
    stopped: str
    seconds: float
