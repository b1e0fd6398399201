"""Whether an exported graph does what its torch module does, on other values and at other sizes too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgekit.errors import BadInput
from edgekit.signal import snr_db
from edgekit.verify import FLOAT_FLOOR_DB, run_onnx, run_torch

if TYPE_CHECKING:
    import torch

    from edgekit.task.record import Task

Call = dict[str, np.ndarray]


def refuse_random(network: torch.nn.Module, task: Task) -> None:
    """Refuse a network whose outputs do not depend on its inputs alone.

    Raises:
        BadInput: two calls with the example gave different outputs.
    """
    call = task.named(task.example)
    first, second = run_torch(network, [call, call])
    for index, (once, again) in enumerate(zip(first, second, strict=True)):
        if once.shape != again.shape or not np.array_equal(once, again, equal_nan=once.dtype.kind == "f"):
            raise BadInput(
                f"output {index} differs between two calls with equal inputs: "
                "the network draws random numbers or keeps a state inside",
                where=f"the model of {task.name}",
                todo="take the random numbers out, or make the state an input and an output",
            )


def disagreement(network: torch.nn.Module, model: onnx.ModelProto, task: Task) -> str | None:
    """In words, where the graph first does something else than the network; None when nowhere.

    A tracing exporter keeps one side of a branch and any size that passed through a Python number, without an
    error. So both are run on the example, on its negative, and with each dynamic axis doubled.

    Args:
        network: the reference.
        model: the graph, run with the optimiser off.
        task: gives the example and the dynamic axes.
    """
    for place, call in _trials(task):
        try:
            expected = run_torch(network, [call])[0]
        except Exception:  # noqa: BLE001, S112 - the network itself does not take such a call
            continue
        try:
            found = run_onnx(model, [call], optimise=False)[0]
        except BadInput as error:
            return f"{place} the graph does not run: {error.what}"
        if difference := _difference(expected, found):
            return f"{place} {difference}"
    return None


def _difference(expected: list[np.ndarray], found: list[np.ndarray]) -> str | None:
    shapes = [[array.shape for array in arrays] for arrays in (expected, found)]
    if shapes[0] != shapes[1]:
        return f"the graph gives outputs of shapes {shapes[1]}, the network {shapes[0]}"
    any_float = any(array.dtype.kind == "f" for array in expected)
    for index, (want, got) in enumerate(zip(expected, found, strict=True)):
        if any_float and want.dtype.kind != "f":
            continue  # class numbers: a tie may fall either way
        if (ratio := snr_db([want], [got])) < FLOAT_FLOOR_DB:
            return f"output {index} of the graph agrees with the network's to {ratio:.0f} dB only"
    return None


def _trials(task: Task) -> Iterator[tuple[str, Call]]:
    example = task.named(task.example)
    yield "on the example", example
    floats = {name: array for name, array in example.items() if array.dtype.kind == "f"}
    if floats:
        yield (
            "on the negated example",
            {**example, **{name: np.asarray(-array) for name, array in floats.items()}},
        )
    for axis_name in sorted({size for spec in task.inputs for size in spec.shape if isinstance(size, str)}):
        doubled = dict(example)
        for spec in task.inputs:
            for axis in [axis for axis, size in enumerate(spec.shape) if size == axis_name]:
                array = doubled[spec.name]
                # Not the same values twice: the order of a sort would then be open.
                more = array * 0.75 if array.dtype.kind == "f" else array
                doubled[spec.name] = np.concatenate([array, more.astype(array.dtype)], axis)
        yield f"with the axis `{axis_name}` doubled", doubled
