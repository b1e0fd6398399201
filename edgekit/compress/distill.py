"""The steps that train: `distill`, to recover what compression cost, and `finetune`, on labels alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from edgekit.compress.calls import spread
from edgekit.compress.context import Context
from edgekit.compress.low_rank.hierarchical import overlap
from edgekit.compress.teaching.adapters import Inside, inside_of
from edgekit.compress.teaching.lesson import Lesson, Trained
from edgekit.compress.teaching.losses import DistillationLoss, classifies, label_loss
from edgekit.compress.teaching.training import channels_last, contiguous, train
from edgekit.compress.teaching.training_data import as_inputs, batches_of_calls, held_out
from edgekit.compress.teaching.training_options import Training
from edgekit.compress.teaching.training_state import seed_all
from edgekit.compress.totals import params_of, total_work
from edgekit.errors import BadInput
from edgekit.result import StepReport
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

    Loss = Callable[[Any, Any, Any], torch.Tensor]

JUDGED_CALLS = 64
MOST_GRADIENT = 1.0  # where the loss is relative to outputs of any size: small ones have large gradients


class Distill(Training):
    """Knowledge distillation: from the task's own network, or from the network after the step before.

    Its outputs teach always: class scores by their softened distribution (Hinton et al. 2015), anything else
    by its relative distance. `features` (FitNets, Romero et al. 2015) and `attention` (Zagoruyko & Komodakis
    2017) teach layers inside too. Several distill steps of which each is taught by the one before are a chain
    of teacher assistants (Mirzadeh et al. 2020).
    """

    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["distill"] = "distill"
    kind: Literal["logits", "features", "attention"] = Field(
        default="logits", description="what is taught: the outputs alone, or layers inside as well"
    )
    temperature: float = Field(default=3.0, gt=0, description="softens both distributions")
    alpha: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="weight of the teacher against the labels; without labels it is 1",
    )
    teacher: Literal["original", "previous"] = Field(
        default="original",
        description="previous: the network after the distill or finetune step before this one",
    )
    layers: tuple[str, ...] = Field(
        default=(),
        description="of features and attention: names of layers; left out: the last of each resolution",
    )
    inside_weight: float = Field(
        default=1.0, gt=0, le=1e4, description="of features or attention beside the outputs"
    )
    level_overlap: float = Field(
        default=0.0, ge=0, le=100, description="weight of the overlap between the levels of hlrtf layers"
    )

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """A fine-tuned copy; the weights of the epoch that came closest to the original.

        Raises:
            BadInput: the task has no data, or none that the network can be trained on; no step before has
                made a teacher; a named layer is not there; the loss stops being finite.
        """
        import torch

        student, teacher = _copy_of(model, self.step, task), self._teacher(task, context)
        example = tuple(torch.from_numpy(array.copy()) for array in task.example)
        base = DistillationLoss(self.temperature, self.alpha, classifies(teacher, example))
        inside = None
        if self.kind != "logits":
            seed_all(self.seed)  # the adapters are drawn
            inside = inside_of(student.eval(), teacher, example, self.kind, self.layers)
        loss = self._loss(base, inside, student)
        return _taught(self, student, task, context, loss, teacher, inside)

    def _teacher(self, task: Task, context: Context) -> torch.nn.Module:
        if self.teacher == "previous" and not context.taught:
            raise BadInput(
                "no distill or finetune step comes before, whose network could be the teacher",
                where="distill",
                todo="use teacher original",
            )
        found = context.taught[-1] if self.teacher == "previous" else task.model
        return _copy_of(found, self.step, task)

    def _loss(self, base: DistillationLoss, inside: Inside | None, student: torch.nn.Module) -> Loss:
        def loss(output: Any, expected: Any, label: Any) -> torch.Tensor:
            found = base(output, expected, label)
            if inside is not None:
                found = found + self.inside_weight * inside.loss()
            if self.level_overlap:
                found = found + self.level_overlap * sum(overlap(student))
            return found

        return loss


class Finetune(Training):
    """Fine-tuning on labels alone."""

    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["finetune"] = "finetune"

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """A fine-tuned copy; the weights of the epoch that came closest to the original.

        Raises:
            BadInput: the task has no training data, or labels that say no loss.
        """

        def loss(output: Any, _expected: Any, label: Any) -> torch.Tensor:
            found = label_loss(output, label)
            if found is None:
                raise BadInput(
                    "the labels are neither class numbers nor what the one output should be",
                    where=f"finetune {task.name}",
                    todo="use distill, which needs none",
                )
            return found

        return _taught(self, _copy_of(model, self.step, task), task, context, loss)


def _copy_of(network: Any, step: str, task: Task) -> torch.nn.Module:
    """A copy in evaluation mode, laid out for training."""
    import torch

    if not isinstance(network, torch.nn.Module):
        raise BadInput(
            "an ONNX file cannot be trained", where=f"{step} {task.name}", todo="give the torch network"
        )
    return channels_last(network).eval()


def _taught(
    step: Distill | Finetune,
    student: torch.nn.Module,
    task: Task,
    context: Context,
    loss: Loss,
    teacher: torch.nn.Module | None = None,
    inside: Inside | None = None,
) -> torch.nn.Module:
    """The student after its training, with the report; on a GPU where there is one, and back."""
    import torch

    place = "cuda" if torch.cuda.is_available() else "cpu"
    student.to(place).train()
    if teacher is not None:
        teacher.to(place)
    if inside is not None:
        inside.attach(student, teacher or student)
        for adapter in inside.adapters:
            adapter.to(place)
    batches, judged = None, context.calls
    if step.data == "calibration":
        batches, judged = _from_calls(step.step, task, context)
    lesson = Lesson(
        step=step.step,
        epochs=step.epochs,
        loss=loss,
        optimiser=step.optimiser_of,
        batches=batches,
        teacher=teacher,
        most_gradient=MOST_GRADIENT if _is_relative(task, inside) else None,
        is_taught=isinstance(step, Distill),
        adapters=inside.adapters if inside else (),
        keep_best=True,
        judged=[as_inputs(call) for call in spread(judged, JUDGED_CALLS)],
        patience=step.patience,
        time_limit=step.time_limit,
        unfreeze=step.unfreeze,
        gradient_checkpointing=step.gradient_checkpointing,
        mixed_precision=step.mixed_precision,
        seed=step.seed,
        detail=context.detail,
        unfinished=context.unfinished,
        key=step.model_dump(mode="json"),
    )
    start = time.monotonic()
    try:
        trained = train(student, task, lesson)
    finally:
        if inside is not None:
            inside.detach()
    made = contiguous(student.cpu()).eval()
    context.taught.append(made)
    notes = [_how_it_went(step, trained)]
    if inside is not None:
        notes.append("taught inside at " + ", ".join(pair.name for pair in inside.pairs))
    context.reports.append(_report(step.step, made, context.example, notes, time.monotonic() - start))
    return made


def _is_relative(task: Task, inside: Inside | None) -> bool:
    import torch

    if inside is not None and inside.kind == "features":
        return True
    example = tuple(torch.from_numpy(array.copy()) for array in task.example)
    return not (isinstance(task.model, torch.nn.Module) and classifies(task.model, example))


def _from_calls(step: str, task: Task, context: Context) -> tuple[Any, Any]:
    """Batches of the calibration calls, and the calls that are held out of them."""
    import torch

    if not context.calls or not isinstance(task.model, torch.nn.Module):
        raise BadInput(
            "there is no calibration data to train on, or no torch network",
            where=f"{step} {task.name}",
            todo="add `calibration_data()` to the task file",
        )
    taught, judged = held_out(context.calls)
    return batches_of_calls(task.model, taught), judged


def _how_it_went(step: Training, trained: Trained) -> str:
    kept = f"epoch {trained.kept}" if trained.kept else "the weights of the start"
    closer = f", {trained.end} with the original, {trained.start} before" if trained.end else ""
    stopped = f"; stopped by {trained.stopped}" if trained.stopped else ""
    return f"kept {kept} of {trained.epochs} (asked {step.epochs}){closer}{stopped}"


def _report(
    step: str, model: torch.nn.Module, example: Mapping[str, Any], notes: list[str], seconds: float
) -> StepReport:
    params, macs = params_of(model), total_work(model, example)
    return StepReport(
        step=step, params=(params, params), macs=(macs, macs), notes=tuple(notes), seconds=seconds
    )
