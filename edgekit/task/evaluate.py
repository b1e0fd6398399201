"""The user's `evaluate`: give it a network as a predict function, and read the score that it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.artifact import Run
from edgekit.errors import BadInput, EdgekitError
from edgekit.task.batches import cut_calls
from edgekit.task.leaves import cast, in_order
from edgekit.task.record import Predict, Task
from edgekit.task.usercode import find_frame, where_defined

# Under which key a dict holds its score; the first one that is there counts.
SCORE_KEYS = ("score", "accuracy", "acc", "top1", "top_1", "f1", "map", "mAP", "miou", "mIoU", "iou", "auc")
OTHER_KEYS = ("per_class", "samples")
PREDICT = "predict()"


@dataclass(frozen=True, kw_only=True)
class Score:
    """What `evaluate` said.

    Attributes:
        value: higher is better.
        classes: the same for each class; empty when it does not say.
        samples: on how many samples; None when it does not say.
    """

    value: float
    classes: dict[str, float] = field(default_factory=dict)
    samples: int | None = None


def score(run: Run, task: Task, evaluate: Callable[[Predict], Any]) -> Score:
    """The user's score of what `run` computes.

    Raises:
        BadInput: `evaluate` raises, or returns no score; names the user's file and line.
    """
    where = f"{where_defined(evaluate)} in evaluate()"
    predict = make_predict(run, task)
    try:
        result = evaluate(predict)
    except EdgekitError as error:
        # Refused inside predict(): the user's line that called it says more.
        raise type(error)(error.what, where=find_frame(error) or error.where, todo=error.todo) from error
    return read_score(result, where)


def make_predict(run: Run, task: Task) -> Predict:
    """A function from a batch of any size to the outputs for it, run by deployed calls."""
    names = [spec.name for spec in task.inputs]

    def predict(*arrays: Any) -> Any:
        given = arrays[0] if len(arrays) == 1 and isinstance(arrays[0], Mapping) else arrays
        ordered = tuple(
            cast(array, spec.dtype, f"`{spec.name}`", PREDICT)
            for array, spec in zip(in_order(given, names, PREDICT), task.inputs, strict=True)
        )
        cut = cut_calls(ordered, task.inputs, task.example, where=PREDICT, pad=True)
        if not cut.calls:
            raise BadInput("is called with no samples", where=PREDICT)
        results = [run(task.named(call)) for call in cut.calls]
        outputs = tuple(_join(parts, task, cut.samples) for parts in zip(*results, strict=True))
        return outputs[0] if len(outputs) == 1 else outputs

    return predict


def _join(parts: Sequence[np.ndarray], task: Task, samples: int | None) -> np.ndarray:
    """One output over all calls: along its batch axis, else along a new first axis, one entry a call."""
    if samples is None:
        return parts[0]
    batch = next(array.shape[0] for array in task.example if array.ndim)
    if all(part.ndim and part.shape[0] == batch for part in parts):
        return np.concatenate(parts)[:samples]
    return np.stack(parts) if len(parts) > 1 else parts[0]


def read_score(result: Any, where: str) -> Score:
    """The score in what `evaluate` returned.

    Raises:
        BadInput: there is none, or it is not a finite number.
    """
    if not isinstance(result, Mapping):
        return Score(value=_number(result, "evaluate", where))
    key = next((key for key in SCORE_KEYS if key in result), None)
    others = [key for key in result if key not in OTHER_KEYS]
    if key is None and len(others) != 1:
        raise BadInput(
            f"returns no score among {', '.join(map(str, result)) or 'nothing'}",
            where=where,
            todo='return {"accuracy": ...}, or a number',
        )
    key = others[0] if key is None else key
    samples = result.get("samples")
    return Score(
        value=_number(result[key], str(key), where),
        classes=_read_classes(result.get("per_class"), where),
        samples=int(_number(samples, "samples", where)) if samples is not None else None,
    )


def _read_classes(given: Any, where: str) -> dict[str, float]:
    if given is None:
        return {}
    given = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(given, Mapping | list | tuple):
        raise BadInput(f"per_class is a {type(given).__name__}", where=where, todo='return {"class": score}')
    items = given.items() if isinstance(given, Mapping) else enumerate(given)
    return {str(name): _number(score, f"per_class `{name}`", where) for name, score in items}


def _number(given: Any, what: str, where: str) -> float:
    """A finite number, out of Python's, numpy's or torch's."""
    value = given.item() if getattr(given, "ndim", None) == 0 else given
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = "None" if given is None else f"a {type(given).__name__}"
        raise BadInput(f"{what} returns {kind}", where=where, todo="return a number, higher is better")
    if not math.isfinite(value):
        raise BadInput(f"{what} is {value}", where=where, todo="return a finite number")
    return float(value)
