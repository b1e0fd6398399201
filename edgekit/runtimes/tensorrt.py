"""TensorRT: an ONNX file of what its parser takes; the engine is made from it on the device.

An engine moves to no other GPU and to no other version, so none is made here. TensorRT itself is not yet run
on hardware by edgekit: figures of this runtime on this machine are ONNX Runtime's on the same graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

from edgekit.artifact import Artifact, Converted
from edgekit.errors import BadInput
from edgekit.graph.prepare import graphs, is_quantized, opset_of, shape_of
from edgekit.graph.rewrite import drop_unused_domains
from edgekit.signal import snr_db
from edgekit.verify import FLOAT_FLOOR_DB, run_onnx

if TYPE_CHECKING:
    import torch

    from edgekit.task.record import Task

FILE = "model.onnx"
NOT_RUN = (
    "TensorRT is not yet run on hardware by edgekit: the device makes the engine at its first start, and "
    "what is measured here is ONNX Runtime on the same graph"
)
OLDER_OPSET, NEWEST_OPSET = 17, 20  # of TensorRT 8.5 and 8.6 (JetPack 5.1, 6.0), and of 10 (JetPack 6.1)
IR_VERSIONS = {OLDER_OPSET: 8, NEWEST_OPSET: 9}  # of the onnx releases that brought these operator sets
# What the parser of TensorRT 8.6 takes: docs/operators.md of onnx/onnx-tensorrt, branch release/8.6-GA.
OPERATORS = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization
    HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow
    QuantizeLinear RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan
    ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze
    Upsample Where Xor
    """.split()
)
ADDED_IN_10 = frozenset("CastLike DeformConv Gelu Hardmax Mish".split())  # branch 10.1-GA
# double is computed in float, other types not at all (the same page).
TYPES = frozenset({"float32", "float16", "int8", "int32", "int64", "uint8", "bool"})
FIRST_OUTPUT_ONLY = frozenset({"MaxPool", "LayerNormalization", "BatchNormalization"})


def convert(
    graph: onnx.ModelProto,
    network: torch.nn.Module | None,
    task: Task,
    folder: Path,
    notes: list[str],
) -> Artifact:
    """The float graph as TensorRT's parser takes it, at the oldest operator set that it can be written in.

    Raises:
        BadInput: an operator, a type, a dynamic axis or a quantization that TensorRT has not.
    """
    del network
    where = f"the model of {task.name}"
    refuse(graph, where)
    written = _older(graph, task)
    if opset_of(written) > NEWEST_OPSET:
        raise BadInput(
            f"TensorRT takes operator sets up to {NEWEST_OPSET}, this is {opset_of(written)}",
            where=where,
            todo=f"export it with opset {NEWEST_OPSET}, or take another runtime",
        )
    if opset_of(written) > OLDER_OPSET or _operators(written) & ADDED_IN_10:
        notes.append(
            f"operator set {opset_of(written)}: the board needs TensorRT 10 (JetPack 6.1) for this file"
        )
    notes.append(NOT_RUN)
    return write(written, folder, "int8" if is_quantized(graph) else "fp32")


def half(converted: Converted, precision: str, folder: Path) -> Artifact:
    """The same float graph; the engine is made in float16 on the device.

    Raises:
        BadInput: the precision is bfloat16.
    """
    if precision != "float16":
        raise BadInput(f"TensorRT engines are made in float16, not in {precision}", where="half")
    return write(onnx.load(converted.artifact.path), folder, "fp16")


def write(model: onnx.ModelProto, folder: Path, precision: str) -> Artifact:
    """A graph as an artifact.

    Args:
        model: its unused operator sets are dropped in place.
        folder: where the file is written.
        precision: of the engine: "fp32", "fp16" or "int8".
    """
    drop_unused_domains(model)
    onnx.save(model, folder / FILE)
    weights = {tensor.name for tensor in model.graph.initializer}
    return Artifact(
        runtime="tensorrt",
        path=folder / FILE,
        inputs=tuple(value.name for value in model.graph.input if value.name not in weights),
        outputs=tuple(value.name for value in model.graph.output),
        options={
            "precision": precision,
            "dtypes": {value.name: _dtype(value) for value in model.graph.output},
        },
    )


def refuse(model: onnx.ModelProto, where: str) -> None:
    """Raise BadInput in one line for the first thing in the graph that TensorRT has not."""
    for what, todo in (*_operator_problems(model), *_interface_problems(model.graph)):
        raise BadInput(what, where=where, todo=todo)
    if problem := asymmetric(model):
        raise BadInput(problem, where=where, todo="give the float model; edgekit quantizes it for TensorRT")


def asymmetric(model: onnx.ModelProto) -> str:
    """In words, the first quantization that is not symmetric and signed; empty where all are.

    TensorRT's parser takes int8 with zero point 0 and positive scales only, zero point given.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        if len(node.input) < 3 or not {node.input[1], node.input[2]} <= weights.keys():
            return f"`{node.name}` has no constant scale and zero point"
        scale, zero = (numpy_helper.to_array(weights[name]) for name in node.input[1:3])
        if zero.dtype != np.int8 or zero.any():
            return f"`{node.name}` quantizes to {zero.dtype} with a zero point; TensorRT takes int8 with none"
        if (scale <= 0).any():
            return f"`{node.name}` has a scale that is not positive"
    return ""


def _operator_problems(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    known, other = OPERATORS | ADDED_IN_10, "rewrite that part, or take another runtime"
    for graph in graphs(model.graph):
        for node in graph.node:
            name = node.name or node.output[0]
            if node.op_type not in known or node.domain not in ("", "ai.onnx"):
                yield f"TensorRT has no operator {node.op_type} (node `{name}`)", other
            elif node.op_type in FIRST_OUTPUT_ONLY and any(node.output[1:]):
                yield f"TensorRT has only the first output of {node.op_type} (node `{name}`)", other


def _interface_problems(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [("input", value) for value in graph.input if value.name not in weights]
    for kind, value in (*inputs, *(("output", value) for value in graph.output)):
        if _dtype(value) not in TYPES:
            yield f"TensorRT has no {_dtype(value)} ({kind} `{value.name}`)", "use float32"
        for axis, size in enumerate(shape_of(value)):
            if isinstance(size, str):
                yield (
                    f"a TensorRT engine has fixed sizes; axis {axis} of {kind} `{value.name}` is dynamic",
                    "declare a fixed size with --input-shape, or take another runtime",
                )


def _dtype(value: onnx.ValueInfoProto) -> str:
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name
    except KeyError:
        return "untyped value"


def _operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for graph in graphs(model.graph) for node in graph.node}


def _older(graph: onnx.ModelProto, task: Task) -> onnx.ModelProto:
    """The graph at the operator set of TensorRT 8 where it converts and gives the same, else a copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    if opset_of(copy) <= OLDER_OPSET:
        return copy
    for node in copy.graph.node:
        # onnx's converter carries the default over to versions that do not know it, and then refuses it.
        for attribute in [a for a in node.attribute if a.name == "noop_with_empty_axes" and not a.i]:
            node.attribute.remove(attribute)
    for opset in (OLDER_OPSET, NEWEST_OPSET):
        try:
            older = version_converter.convert_version(copy, opset)
            onnx.checker.check_model(older, full_check=True)
            if _same(graph, older, task):
                older.ir_version = min(older.ir_version, IR_VERSIONS[opset])
                return older
        except Exception:  # noqa: BLE001, S112 - of many kinds; the graph as it is may do
            continue
    return copy


def _same(before: onnx.ModelProto, after: onnx.ModelProto, task: Task) -> bool:
    call: dict[str, Any] = task.named(task.example)
    wanted, found = (run_onnx(model, [call], optimise=False)[0] for model in (before, after))
    pairs = list(zip(wanted, found, strict=True))
    return all(snr_db([a], [b]) >= FLOAT_FLOOR_DB for a, b in pairs if a.dtype.kind == "f")
