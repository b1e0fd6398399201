"""What a graph declares of the shapes of its inputs and outputs, put right by what it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from edgekit.errors import BadInput
from edgekit.graph.run import open_session, run

Inputs = Sequence[tuple[str, Sequence[int | str]]]
Shape = tuple[int, ...]


def declare_inputs(model: onnx.ModelProto, inputs: Inputs) -> None:
    """Declare the shapes of the inputs of which the file says nothing, in place.

    Args:
        model: its inputs are changed where they have no shape at all.
        inputs: each with its name and shape; a text is a dynamic axis.
    """
    shapes = dict(inputs)
    for value in model.graph.input:
        kind = value.type.tensor_type
        if kind.HasField("shape") or value.name not in shapes:
            continue
        kind.shape.SetInParent()
        for size in shapes[value.name]:
            dim = kind.shape.dim.add()
            if isinstance(size, str):
                dim.dim_param = size
            else:
                dim.dim_value = size


def declare_outputs(model: onnx.ModelProto, inputs: Inputs, example: Sequence[np.ndarray]) -> None:
    """Correct the output shapes that are not what the graph gives, in place.

    An exporter writes the size of the example where a dynamic axis reaches an output, and some files declare
    shapes that are wrong altogether. So the graph is run on the example, and with each dynamic axis doubled.

    Args:
        model: its declared outputs are changed where a run contradicts them.
        inputs: in the order of the example, each with its name and shape; a text is a dynamic axis.
        example: one call.
    """
    sizes, calls = _calls(inputs, example)
    try:
        session = open_session(model, optimise=False)
    except BadInput:  # who runs the graph says so
        return
    runs = []
    for call in calls:
        try:
            runs.append([array.shape for array in run(session, call)])
        except BadInput:  # not every network takes every size
            runs.append([])
    for index, output in enumerate(model.graph.output):
        if runs[0] and output.type.tensor_type.HasField("shape"):
            _correct(output, [shapes[index] if shapes else None for shapes in runs], sizes)


def _calls(
    inputs: Inputs, example: Sequence[np.ndarray]
) -> tuple[dict[str, list[int]], list[dict[str, np.ndarray]]]:
    """The example, then it with each dynamic axis doubled; and the size of each dynamic axis in each call."""
    given = [(name, shape, array) for (name, shape), array in zip(inputs, example, strict=True)]
    first = {
        word: array.shape[axis]
        for _, shape, array in given
        for axis, word in enumerate(shape)
        if isinstance(word, str)
    }
    calls = [{name: array for name, _, array in given}]
    calls += [{name: _double(array, shape, word) for name, shape, array in given} for word in first]
    sizes = {
        word: [size] + [2 * size if other == word else size for other in first]
        for word, size in first.items()
    }
    return sizes, calls


def _double(array: np.ndarray, shape: Sequence[int | str], word: str) -> np.ndarray:
    """The array with each axis of that name twice as long."""
    axes = [axis for axis, size in enumerate(shape) if size == word]
    return np.tile(array, [2 if axis in axes else 1 for axis in range(array.ndim)]) if axes else array


def _correct(
    output: onnx.ValueInfoProto, shapes: Sequence[Shape | None], sizes: Mapping[str, Sequence[int]]
) -> None:
    """Put one output's shape right by those that the calls gave; None where a call failed."""
    kind = output.type.tensor_type
    ranks = {len(shape) for shape in shapes if shape is not None}
    if ranks != {len(kind.shape.dim)}:
        kind.ClearField("shape")
        if len(ranks) > 1:
            return
        for _ in range(ranks.pop()):
            kind.shape.dim.add(dim_value=-1)  # what no run gives
    for axis, dim in enumerate(kind.shape.dim):
        found = [None if shape is None else shape[axis] for shape in shapes]
        known = {size for size in found if size is not None}
        if not dim.HasField("dim_value") or known == {dim.dim_value}:
            continue
        if followed := [word for word, each in sizes.items() if list(each) == found]:
            dim.dim_param = followed[0]
        elif len(known) == 1 and None not in found:
            dim.dim_value = found[0] or 0
        else:
            dim.dim_param = f"{output.name}_{axis}"
