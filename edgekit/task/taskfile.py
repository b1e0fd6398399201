"""The task file: one Python file, of which every part is optional except `model`.

    def model()              # a torch module in evaluation mode, the path of a model file (relative to this
                             # file), or `timm/NAME`, `torchvision/NAME`
    def example_inputs()     # the deployed call: a tensor, a tuple of tensors, or a dict {input name: tensor}
    def calibration_data()   # an iterable of such calls, without labels
    def training_data()      # a DataLoader or another iterable of (input, label) batches
    def evaluate(predict)    # a score, higher is better, at best a share between 0 and 1; or a dict
                             # {"accuracy": 0.98, "per_class": {"cat": 0.97, ...}, "samples": 1000}
    dynamic_axes = {"image": {0: "batch"}}   # axes whose size may differ from call to call
    output_names = ("logits",)

`predict(*arrays)` takes a batch of any size and gives an array, or a tuple of them where there are several
outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import BadInput
from edgekit.near import nearest
from edgekit.task.usercode import guard, import_file, is_user_function, show_path

FUNCTIONS = ("model", "example_inputs", "calibration_data", "training_data", "evaluate")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a task file defines besides the model; without a task file, nothing.

    Attributes:
        folder: where the file lies; its functions import from there, and fail with one line.
        notes: warnings for the report.
    """

    folder: Path = Path()
    example_inputs: Callable[[], Any] | None = None
    calibration_data: Callable[[], Any] | None = None
    training_data: Callable[[], Any] | None = None
    evaluate: Callable[..., Any] | None = None
    dynamic_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_task_file(path: Path) -> tuple[Callable[[], Any], Parts]:
    """The file's `model` function and its other parts.

    Raises:
        BadInput: missing, its code raises, it has no `model`, or a part is of the wrong kind.
    """
    defined, where = vars(import_file(path)), show_path(path)
    functions = {name: _function(defined, name, path) for name in FUNCTIONS}
    model = functions.pop("model")
    own = [name for name, value in defined.items() if is_user_function(value, path)]
    if model is None:
        todo = nearest("model", own) or "define `def model():` that returns the network"
        raise BadInput("defines no `model`", where=where, todo=todo)
    parts = Parts(
        folder=path.parent,
        **functions,
        dynamic_axes=_read_axes(defined.get("dynamic_axes", {}), f"{where}: dynamic_axes"),
        output_names=_read_names(defined.get("output_names", ()), f"{where}: output_names"),
        notes=tuple(_find_misspelt(own, where)),
    )
    return model, parts


def _function(defined: Mapping[str, Any], name: str, path: Path) -> Callable[..., Any] | None:
    value = defined.get(name)
    if value is None:
        return None
    if not callable(value):
        raise BadInput(
            f"`{name}` is a {type(value).__name__}", where=show_path(path), todo=f"write `def {name}(...):`"
        )
    return guard(value, path.parent)


def _read_axes(given: Any, where: str) -> dict[str, dict[int, str]]:
    fits = isinstance(given, Mapping) and all(
        isinstance(axes, Mapping)
        and all(
            type(axis) is int and isinstance(word, str) and word.isidentifier() for axis, word in axes.items()
        )
        for axes in given.values()
    )
    if not fits:
        raise BadInput("is not of the right form", where=where, todo='write {"input name": {0: "batch"}}')
    return {str(name): dict(axes) for name, axes in given.items()}


def _read_names(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) and name for name in given):
        raise BadInput("is not of the right form", where=where, todo='write ("logits",)')
    if len(set(given)) < len(given):
        raise BadInput("a name stands twice", where=where)
    return tuple(given)


def _find_misspelt(own: list[str], where: str) -> list[str]:
    """Functions whose names nearly are those of a part: a misspelt part would go unused without a word."""
    found = []
    for name in own:
        parts = [part for part in FUNCTIONS if part not in own]
        advice = nearest(name, parts) if name not in FUNCTIONS else None
        if advice is not None:
            found.append(f"{where}: `{name}` is not a part of a task file and goes unused; {advice}")
    return found
