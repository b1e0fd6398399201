"""How good a network is on the task, and what it lost against the original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from edgekit.artifact import Run
from edgekit.errors import BadInput
from edgekit.graph.classifier import is_classifier
from edgekit.graph.run import opened
from edgekit.result import Quality
from edgekit.signal import snr_db
from edgekit.task.evaluate import Score, score
from edgekit.task.record import Arrays, Task

ACCURACY, AGREEMENT, SIGNAL, NONE = "accuracy", "top-1 agreement", "signal-to-noise", "none"
MOST_BYTES = 10**9  # outputs of the original that are kept to compare with


@dataclass(frozen=True, kw_only=True)
class Original:
    """What the float graph does on the task; everything else is judged against it.

    Attributes:
        quality: its own, with nothing lost.
        score: what the task's `evaluate` said of it, where there is one.
        outputs: for each calibration call that is compared, where there is no `evaluate`.
    """

    quality: Quality
    score: Score | None = None
    outputs: tuple[Arrays, ...] = ()


def judge_original(model: onnx.ModelProto, task: Task) -> Original:
    """How good the float graph is: by the task's `evaluate`, else its outputs on the calibration data.

    Raises:
        BadInput: `evaluate` fails or gives no score, or the graph gives NaN on a calibration call.
    """
    run = opened(model)
    if task.evaluate is not None:
        said = score(run, task, task.evaluate)
        quality = Quality(
            kind=ACCURACY,
            score=said.value,
            drop=0.0,
            class_drop=0.0 if said.classes else None,
            samples=said.samples,
        )
        return Original(quality=quality, score=said)
    if not task.calibration:
        return Original(quality=Quality(kind=NONE, score=None, drop=None))
    outputs = _outputs(run, task, _how_many(run, task))
    for index, arrays in enumerate(outputs):
        if any(array.dtype.kind == "f" and bool(np.isnan(array).any()) for array in arrays):
            raise BadInput(f"the model gives NaN on calibration call {index}", where=task.name)
    classifies = is_classifier(model, outputs[0]) and _tells_apart(outputs)
    samples = sum(len(arrays[0]) for arrays in outputs) if classifies else len(outputs)
    kind, score_value = (AGREEMENT, 1.0) if classifies else (SIGNAL, math.inf)
    quality = Quality(kind=kind, score=score_value, drop=0.0, samples=samples)
    return Original(quality=quality, outputs=outputs)


def measure_quality(run: Run, task: Task, original: Original) -> Quality:
    """How good what `run` computes is, and what it lost.

    A loss is counted in score points where `evaluate` gives shares between 0 and 1, and as a share of the
    original's score where it gives anything else (percent, dB, a reward). Without `evaluate` it is the share
    of calibration samples whose first class differs, for a classifier, else the energy of the difference
    over that of the signal (1 % is 20 dB) for the output that lost most: a large one hides no small one.

    Raises:
        BadInput: `evaluate` fails or gives no score.
    """
    if original.score is not None and task.evaluate is not None:
        said = score(run, task, task.evaluate)
        drop = _lost(original.score.value, said.value)
        quality = replace(original.quality, score=said.value, drop=drop, samples=said.samples)
        return _with_classes(quality, original.score, said)
    if original.quality.kind == NONE:
        return original.quality
    outputs = _outputs(run, task, len(original.outputs))
    if original.quality.kind == AGREEMENT:
        agreement = _agreement(original.outputs, outputs)
        return replace(original.quality, score=agreement, drop=1 - agreement)
    ratio = min(map(_ratio_db, zip(*original.outputs, strict=True), zip(*outputs, strict=True)))
    return replace(original.quality, score=ratio, drop=10 ** (-ratio / 10) if ratio > -math.inf else math.inf)


def _lost(before: float, after: float) -> float:
    return before - after if 0 <= before <= 1 else (before - after) / abs(before)


def _with_classes(quality: Quality, original: Score, score: Score) -> Quality:
    """The quality with the loss of the class that lost most; one that is missing now lost everything."""
    if not original.classes:
        return quality
    losses = {name: _lost(value, score.classes.get(name, 0.0)) for name, value in original.classes.items()}
    worst = max(losses, key=lambda name: losses[name])
    return replace(quality, class_drop=losses[worst], worst_class=worst)


def _how_many(run: Run, task: Task) -> int:
    """How many calibration calls are compared: all, unless their outputs would fill the memory."""
    calls = task.calibration or ()
    size = sum(array.nbytes for arrays in _outputs(run, task, 1) for array in arrays)
    return min(len(calls), max(1, MOST_BYTES // max(1, size)))


def _outputs(run: Run, task: Task, number: int) -> tuple[Arrays, ...]:
    """The outputs for the first calibration calls."""
    calls = (task.calibration or ())[:number]
    return tuple(tuple(run(task.named(call))) for call in calls)


def _tells_apart(outputs: Sequence[Arrays]) -> bool:
    """Whether the samples have more than one first class: else to agree on it says nothing."""
    return len(np.unique(np.concatenate([arrays[0] for arrays in outputs]).argmax(1))) > 1


def _agreement(original: Sequence[Arrays], outputs: Sequence[Arrays]) -> float:
    """The share of samples with the same first class; a row of NaN agrees with nothing."""
    before, after = (np.concatenate([arrays[0] for arrays in side]) for side in (original, outputs))
    same = (before.argmax(1) == after.argmax(1)) & ~np.isnan(after).any(1)
    return float(same.mean())


def _ratio_db(before: Arrays, after: Arrays) -> float:
    """The signal-to-noise ratio of one output over all calls; -inf where it is not a number."""
    # An output whose size depends on its values (boxes that were found) may differ in shape: nothing is kept.
    fitting = [
        new if new.shape == old.shape else np.zeros_like(old) for old, new in zip(before, after, strict=True)
    ]
    ratio = snr_db(before, fitting)
    return -math.inf if math.isnan(ratio) else ratio
