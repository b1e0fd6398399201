"""An ONNX file: read it, check it, and say what it takes and gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from edgekit.errors import BadInput, first_line
from edgekit.graph.prepare import NEWEST_IR, NEWEST_OPSET, graphs, opset_of, prepare
from edgekit.task.record import Argument, Loaded
from edgekit.task.usercode import show_path

# An infinite value in these operators' weights is a broken weight; elsewhere (an attention mask, the bound
# of a Clip) it may be meant.
WEIGHTED = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN",
    "BatchNormalization", "LayerNormalization", "InstanceNormalization",
}  # fmt: skip
EXPORT_AGAIN = "export or download it again"
PROTOBUF_LIMIT = 2 * 1024**3  # bytes that one message can hold; no runtime takes more from memory
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}


def read_onnx(path: Path) -> Loaded:
    """An ONNX file as a task's model, and the inputs that it declares.

    Raises:
        BadInput: the file is not a valid model.
    """
    model = load_onnx(path)
    return Loaded(model=model, arguments=read_inputs(model, show_path(path)))


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file and the external data beside it.

    onnx itself confines external data to the file's folder and refuses links out of it.

    Raises:
        BadInput: the file is not a valid model.
    """
    where = show_path(path)
    try:
        model = onnx.load(str(path))
    except DecodeError as error:
        raise BadInput("is not an ONNX model: it cannot be parsed", where=where, todo=EXPORT_AGAIN) from error
    except onnx.checker.ValidationError as error:
        raise BadInput(f"external data cannot be read: {first_line(error)}", where=where) from error
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read: {first_line(error)}", where=where) from error
    if not model.graph.node:
        raise BadInput("is not an ONNX model: it holds no graph", where=where, todo=EXPORT_AGAIN)
    _free_axes(model.graph)
    check_onnx(model, where)
    if opset_of(model) > NEWEST_OPSET or model.ir_version > NEWEST_IR:
        model, _ = prepare(model, opset=NEWEST_OPSET, ir_version=NEWEST_IR)
    return model


def _free_axes(graph: onnx.GraphProto) -> None:
    """Some exporters write a size of 0 or -1 for "any size": make such axes of inputs and outputs that."""
    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.WhichOneof("value") == "dim_value" and axis.dim_value <= 0:
                axis.ClearField("dim_value")


def check_onnx(model: onnx.ModelProto, where: str) -> None:
    """Check a model against the ONNX rules, and its weights for values that are not numbers.

    Raises:
        BadInput: a rule is broken, or a weight is NaN or infinite.
    """
    if model.ByteSize() >= PROTOBUF_LIMIT:
        raise BadInput("is larger than 2 GB", where=where, todo="give a network that is made for a device")
    try:
        with _a_shape_on_all(model.graph):
            onnx.checker.check_model(model)
    except Exception as error:
        raise BadInput(f"is not a valid ONNX model: {first_line(error)}", where=where) from error
    _check_weights(model.graph, where)


@contextmanager
def _a_shape_on_all(graph: onnx.GraphProto) -> Iterator[None]:
    """The checker asks for a shape where no runtime does: give it one, and take it back."""
    values = [value.type for value in (*graph.input, *graph.output)]
    tensors = [kind.tensor_type for kind in values if kind.HasField("tensor_type")]
    bare = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in bare:
        tensor.shape.SetInParent()
    try:
        yield
    finally:
        for tensor in bare:
            tensor.ClearField("shape")


def read_inputs(model: onnx.ModelProto, where: str) -> tuple[Argument, ...]:
    """The inputs that a call must give: those of the graph that are not initializers.

    Raises:
        BadInput: there are none, or an input or output is not a tensor of numbers.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = tuple(_read_input(value, where) for value in model.graph.input if value.name not in weights)
    if not inputs:
        raise BadInput("the graph has no inputs", where=where)
    for value in model.graph.output:
        _check_tensor("output", value, where)
        if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            raise BadInput(
                f"output `{value.name}` holds text, only numbers are given",
                where=where,
                todo="export the model without it",
            )
    return inputs


def _read_input(value: onnx.ValueInfoProto, where: str) -> Argument:
    _check_tensor("input", value, where)
    tensor = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError as error:
        raise BadInput(f"input `{value.name}` has no element type", where=where) from error
    if dtype.kind not in "fiub":
        shown = "text" if dtype.kind == "O" else dtype.name
        raise BadInput(f"input `{value.name}` is of type {shown}, only numbers are taken", where=where)
    shape = tuple(_read_axis(axis) for axis in tensor.shape.dim) if tensor.HasField("shape") else None
    return Argument(name=value.name, shape=shape, dtype=dtype.name)


def _check_tensor(role: str, value: onnx.ValueInfoProto, where: str) -> None:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type" and (kind is not None or role == "input"):
        shown = (kind or "untyped").removesuffix("_type")
        raise BadInput(f"{role} `{value.name}` is of the kind {shown}, only tensors are taken", where=where)


def _read_axis(axis: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return int(axis.dim_value) if axis.HasField("dim_value") else axis.dim_param or None


def _check_weights(graph: onnx.GraphProto, where: str) -> None:
    for inner in graphs(graph):
        weighted = {name for node in inner.node if node.op_type in WEIGHTED for name in node.input}
        for name, tensor in _named_tensors(inner):
            if tensor.data_type in FLOATS:
                _check_weight(name, numpy_helper.to_array(tensor), name in weighted, where)


def _named_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], a.t) for a in node.attribute if a.name == "value")


def _check_weight(name: str, values: np.ndarray, weighted: bool, where: str) -> None:
    nans = int(np.isnan(values).sum())
    if nans:
        raise BadInput(f"initializer `{name}` holds NaN ({nans} of {values.size} values)", where=where)
    infinite = int(np.isinf(values).sum())
    if weighted and infinite:
        raise BadInput(
            f"initializer `{name}` holds infinite values ({infinite} of {values.size})", where=where
        )
