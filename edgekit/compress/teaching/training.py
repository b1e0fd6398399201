"""Training a student on the task's own data with the original network as the teacher."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from edgekit.compress.teaching.held_out import Best, judge_of
from edgekit.compress.teaching.lesson import Lesson, Trained
from edgekit.compress.teaching.partly import layers_with_weights, recomputed, unfreeze
from edgekit.compress.teaching.training_data import count_batches, list_or_fresh, split_batch
from edgekit.compress.teaching.training_state import TrainingState, digest_of_training, seed_all
from edgekit.errors import BadInput, EdgekitError, first_line
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

    Inputs = tuple[torch.Tensor, ...]

SHOWN_S = 0.5  # between two lines of progress
JUDGED_BATCHES = 4  # of the training data, where there are no calls to judge on


def train(student: torch.nn.Module, task: Task, lesson: Lesson) -> Trained:
    """Train the student in place, on one thread and from a fixed seed; its mode is the caller's.

    Raises:
        BadInput: the task has no training data, or none that the network can be trained on; the loss stops
            being finite.
        OutsideFailure: the state cannot be written.
    """
    import torch

    if (task.training is None and lesson.batches is None) or not isinstance(task.model, torch.nn.Module):
        raise BadInput(
            f"{lesson.step} needs training data and a torch network",
            where=f"{lesson.step} {task.name}",
            todo="add `training_data()` to the task file, or give --training",
        )
    seed_all(lesson.seed)
    flags = [(parameter, parameter.requires_grad) for parameter in student.parameters()]
    try:
        with one_thread(), recomputed(student) if lesson.gradient_checkpointing else nullcontext():
            batches = lesson.batches if lesson.batches is not None else list_or_fresh(task.training)
            return _Course(student, task.model, batches, lesson).run()
    except EdgekitError:
        raise
    except Exception as error:
        raise BadInput(
            f"cannot be trained on the training data: {type(error).__name__}: {first_line(error)}",
            where=f"{lesson.step} {task.name}",
            todo="yield (input, label) batches of tensors that fit the network",
        ) from error
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class _Course:
    """One run through the epochs of a lesson."""

    def __init__(
        self, student: torch.nn.Module, original: torch.nn.Module, batches: Iterable[Any], lesson: Lesson
    ) -> None:
        import torch

        self.student, self.batches, self.lesson = student, batches, lesson
        self.place: Any = next(iter(student.parameters()), torch.empty(0)).device
        self.teacher = (
            channels_last(original).eval().to(self.place) if lesson.teacher is None else lesson.teacher
        )
        self.per_epoch = count_batches(batches, lesson.step)
        self.adapters = torch.nn.ModuleList(lesson.adapters)
        self.parameters = [*student.parameters(), *self.adapters.parameters()]
        self.optimiser, self.schedule = lesson.optimiser(self.parameters, lesson.epochs * self.per_epoch)
        self.best = Best(judge=judge_of(original, self._judged()) if lesson.keep_best else None)
        self.layers = layers_with_weights(student)
        self.steps, self.since, self.shown, self.loss = 0, time.monotonic(), 0.0, float("nan")

    def _judged(self) -> Sequence[Inputs]:
        from itertools import islice

        return self.lesson.judged or [split_batch(batch)[0] for batch in islice(self.batches, JUDGED_BATCHES)]

    def run(self) -> Trained:
        lesson, state = self.lesson, self._state()
        done, before, stopped = state.restore() if state else (0, 0.0, "")
        if done and state:
            self.steps, self.since = done * self.per_epoch, time.monotonic() - before
            if not stopped and done < lesson.epochs:
                state.restore_generators(self.batches, done)
        else:
            self.best.look(self.student)
        while done < lesson.epochs and not stopped:
            unfreeze(self.layers, done, lesson.unfreeze)
            stopped = self._pass(done)
            done += 1
            lesson.after(done, self.loss)
            self.best.look(self.student)
            stopped = stopped or self._waited()
            if state:
                state.save(done, self._seconds(), stopped)
        if self.best.state:
            self.student.load_state_dict(self.best.state)
        return Trained(
            epochs=done,
            kept=self.best.epoch if self.best.state else done,
            start=self.best.words(0),
            end=self.best.words(self.best.epoch),
            stopped=stopped,
            seconds=self._seconds(),
        )

    def _pass(self, epoch: int) -> str:
        """One pass over the batches; why it must be the last, else ''."""
        import torch

        for inputs, label in map(split_batch, self.batches):
            loss = self._step(inputs, label)
            if not torch.isfinite(loss):
                raise BadInput(
                    "the loss is no longer finite", where=self.lesson.step, todo="lower learning_rate"
                )
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.lesson.most_gradient is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.lesson.most_gradient)
            self.optimiser.step()
            self.schedule.step()
            self.steps += 1
            self.loss = loss.item()
            self._show(epoch)
            if self.lesson.time_limit is not None and self._seconds() >= self.lesson.time_limit:
                return f"the time limit of {self.lesson.time_limit:g} s"
        return ""

    def _step(self, inputs: Inputs, label: Any) -> torch.Tensor:
        import torch
        from torch.utils import _pytree as pytree

        inputs, label = pytree.tree_map_only(torch.Tensor, lambda t: t.to(self.place), (inputs, label))
        with self._precision():
            output, expected = self.student(*inputs), None
            if self.lesson.is_taught:
                with torch.no_grad():
                    expected = self.teacher(*inputs)
            return self.lesson.loss(output, expected, label)

    def _precision(self) -> AbstractContextManager[Any]:
        """The range of bfloat16 is float32's, so that no loss scaling is needed; a CPU trains in float32."""
        import torch

        if self.lesson.mixed_precision and self.place.type == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _state(self) -> TrainingState | None:
        lesson = self.lesson
        if lesson.unfinished is None:
            return None
        key = {"step": lesson.step, "batches": self.per_epoch, **lesson.key}
        name = digest_of_training(key, [self.student, self.teacher, self.adapters])
        return TrainingState(
            path=lesson.unfinished / f"{lesson.step}-{name}.safetensors",
            student=self.student,
            adapters=self.adapters,
            optimiser=self.optimiser,
            schedule=self.schedule,
            best=self.best,
        )

    def _waited(self) -> str:
        patience = self.lesson.patience
        if patience is None or self.best.judge is None or self.best.waited() < patience:
            return ""
        return f"{patience} epochs that came no closer"

    def _seconds(self) -> float:
        return time.monotonic() - self.since

    def _show(self, epoch: int) -> None:
        spent = self._seconds()
        if spent - self.shown < SHOWN_S and self.steps % self.per_epoch:
            return
        self.shown = spent
        left = spent / self.steps * (self.lesson.epochs * self.per_epoch - self.steps)
        if self.lesson.time_limit is not None:
            left = min(left, max(0.0, self.lesson.time_limit - spent))
        quality = f", {words}" if (words := self.best.words()) else ""
        self.lesson.detail(
            f"epoch {epoch + 1} of {self.lesson.epochs}, loss {self.loss:.3f}{quality}, {left:.0f} s left"
        )


def channels_last(model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose weights are laid out so that training on a CPU is up to 1.8 times faster."""
    import torch

    moved = copy.deepcopy(model)
    for parameter in moved.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return moved


def contiguous(model: torch.nn.Module) -> torch.nn.Module:
    """The model with its weights laid out as usual, changed in place."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


@contextmanager
def one_thread() -> Iterator[None]:
    """Two torch threads on a shared two-core machine are several times slower than one (barrier spinning)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
