"""What a model takes and gives, as the manifest says it: from the graph, held against real calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from edgekit.bundle.manifest import Tensor
from edgekit.errors import BadInput
from edgekit.graph.prepare import shape_of

Arrays = Mapping[str, np.ndarray]
Shape = tuple[int, ...]
Axes = list[int | str]


def check_interface(graph: onnx.GraphProto, calls: Sequence[Arrays]) -> None:
    """See that the calls give every input, and that no input or output is anything but a tensor of numbers.

    Raises:
        BadInput: the line names the input or output.
    """
    for value in inputs_of(graph):
        _dtype("input", value)
        for call in calls:
            if value.name not in call:
                what = f"the input `{value.name}` is missing; given: {', '.join(call)}"
                raise BadInput(what, where="the golden calls")
    for value in graph.output:
        _dtype("output", value)


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a call gives: old files list the weights among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def describe_inputs(graph: onnx.GraphProto, calls: Sequence[Arrays]) -> list[Tensor]:
    """The inputs in the order of the graph, each with the range seen in `calls`."""
    values = inputs_of(graph)
    seen = {value.name: [call[value.name] for call in calls] for value in values}
    return _untangle([_describe("input", value, seen[value.name]) for value in values], seen)


def describe_outputs(graph: onnx.GraphProto, outputs: Mapping[str, Sequence[np.ndarray]]) -> list[Tensor]:
    """The outputs in the order of the graph, each with the range of `outputs`, its arrays by name."""
    return [_describe("output", value, outputs[value.name]) for value in graph.output]


def _describe(kind: str, value: onnx.ValueInfoProto, arrays: Sequence[np.ndarray]) -> Tensor:
    dtype = _dtype(kind, value)
    declared = shape_of(value) if value.type.tensor_type.HasField("shape") else None
    shape = _axes(value.name, declared, [array.shape for array in arrays])
    return Tensor(name=value.name, shape=shape, dtype=dtype, range=_range(arrays))


def _dtype(kind: str, value: onnx.ValueInfoProto) -> str:
    where = f"{kind} `{value.name}`"
    if value.type.WhichOneof("value") != "tensor_type":
        raise BadInput(f"is a {value.type.WhichOneof('value')}; edgekit packs tensors only", where=where)
    element = value.type.tensor_type.elem_type
    dtype = helper.tensor_dtype_to_np_dtype(element)
    if dtype.kind not in "fiub":
        name = onnx.TensorProto.DataType.Name(element).lower()
        raise BadInput(f"is of type {name}, which numpy has no numbers for", where=where)
    return str(dtype)


def _axes(name: str, declared: tuple[int | str, ...] | None, seen: Sequence[Shape]) -> Axes:
    """The size of each axis, or the name of a dynamic one; what real arrays refute is dropped."""
    rank = len(seen[0])
    if declared is None or len(declared) != rank:
        declared = ("?",) * rank
    axes: Axes = []
    for axis, said in enumerate(declared):
        sizes = {shape[axis] for shape in seen}
        unnamed = f"{name}_{axis}"
        if isinstance(said, str):
            axes.append(unnamed if said == "?" else said)
        else:
            axes.append(sizes.pop() if len(sizes) == 1 else unnamed)
    return axes


def _untangle(tensors: list[Tensor], seen: Mapping[str, Sequence[np.ndarray]]) -> list[Tensor]:
    """Rename dynamic axes that share a name and not a size: files from elsewhere call them all "N"."""
    sizes: dict[str, set[Shape]] = {}
    for tensor in tensors:
        for number, axis in enumerate(tensor.shape):
            if isinstance(axis, str):
                by_call = tuple(array.shape[number] for array in seen[tensor.name])
                sizes.setdefault(axis, set()).add(by_call)
    tangled = {axis for axis, differing in sizes.items() if len(differing) > 1}
    return [_rename(tensor, tangled) for tensor in tensors]


def _rename(tensor: Tensor, tangled: set[str]) -> Tensor:
    axes = [f"{tensor.name}_{i}" if axis in tangled else axis for i, axis in enumerate(tensor.shape)]
    return tensor.model_copy(update={"shape": axes})


def _range(arrays: Iterable[np.ndarray]) -> tuple[float, float] | None:
    """Lowest and highest finite value; None when there is none."""
    lows, highs = [], []
    for array in arrays:
        finite = array[np.isfinite(array)]
        if finite.size:
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    return (min(lows), max(highs)) if lows else None
