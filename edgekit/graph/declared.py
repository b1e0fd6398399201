"""What a graph declares of its outputs' shapes, put right by what it gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgekit.errors import BadInput
from edgekit.graph.run import open_session, run

Inputs = Sequence[tuple[str, Sequence[int | str]]]
Shape = tuple[int, ...]


def declare_outputs(model: onnx.ModelProto, inputs: Inputs, example: Sequence[np.ndarray]) -> None:
    """Correct the output shapes that are not what the graph gives, in place.

    An exporter writes the size of the example where a dynamic axis reaches an output, and some files declare
    shapes that are wrong altogether. So the graph is run on the example, and with each dynamic axis doubled.

    Args:
        model: its declared outputs are changed where a run contradicts them.
        inputs: the inputs in the order of the example, each with its name and shape; a text is a dynamic axis.
        example: one call.
    """
    calls = _calls(inputs, example)
    runs = []
    session = open_session(model, optimise=False)
    for sizes, call in calls:
        try:
            runs.append((sizes, [array.shape for array in run(session, call)]))
        except BadInput:  # not every network takes every size
            continue
    for index, output in enumerate(model.graph.output):
        if runs and output.type.tensor_type.HasField("shape"):
            _correct(output, [(sizes, shapes[index]) for sizes, shapes in runs])


def _calls(
    inputs: Inputs, example: Sequence[np.ndarray]
) -> list[tuple[dict[str, int], dict[str, np.ndarray]]]:
    """The example, then it with each dynamic axis doubled; each with the sizes of the dynamic axes."""
    sizes: dict[str, int] = {}
    for (_, shape), array in zip(inputs, example, strict=True):
        sizes.update({word: array.shape[axis] for axis, word in enumerate(shape) if isinstance(word, str)})
    calls = [(sizes, {name: array for (name, _), array in zip(inputs, example, strict=True)})]
    for word in sizes:
        doubled = {}
        for (name, shape), array in zip(inputs, example, strict=True):
            for axis in [axis for axis, size in enumerate(shape) if size == word]:
                array = np.repeat(array, 2, axis)
            doubled[name] = array
        calls.append(({**sizes, word: 2 * sizes[word]}, doubled))
    return calls


def _correct(output: onnx.ValueInfoProto, runs: Sequence[tuple[dict[str, int], Shape]]) -> None:
    declared = output.type.tensor_type.shape
    ranks = {len(shape) for _, shape in runs}
    if ranks != {len(declared.dim)}:
        output.type.tensor_type.ClearField("shape")
        if len(ranks) > 1:
            return
        for _ in range(next(iter(ranks))):
            output.type.tensor_type.shape.dim.add()
        declared = output.type.tensor_type.shape
    for axis, dim in enumerate(declared.dim):
        found = [shape[axis] for _, shape in runs]
        if dim.HasField("dim_value") and set(found) != {dim.dim_value}:
            dim.dim_param = _name(output.name, axis, runs)


def _name(output: str, axis: int, runs: Sequence[tuple[dict[str, int], Shape]]) -> str:
    """The dynamic axis of an input that this one follows in every run, else a name of its own."""
    words = [word for word in runs[0][0] if all(shape[axis] == sizes[word] for sizes, shape in runs)]
    return words[0] if words else f"{output}_{axis}"
