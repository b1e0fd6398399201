"""The ways of quantizing for OpenVINO; all are NNCF's, on OpenVINO's own model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from edgekit.artifact import Artifact, Converted
from edgekit.compress.calls import spread
from edgekit.compress.context import Context
from edgekit.compress.quantization.openvino_static import quantize, quantize_within
from edgekit.compress.quantization.openvino_weights import compress_int4, compress_int8, share_of_int4
from edgekit.compress.quantization.qat_ways import qat_way
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.way import Way
from edgekit.ondevice.runner.session_openvino import load
from edgekit.runtimes.openvino import write
from edgekit.runtimes.openvino_kernels import left_in_float
from edgekit.task.record import Task

if TYPE_CHECKING:
    import openvino

DYNAMIC_GROUP = 128  # activations that share a scale: a quarter faster than 32, and no less accurate
PRODUCTS = frozenset({"MatMul", "Gemm"})
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
HEAVY = PRODUCTS | CONVOLUTIONS | {"LSTM", "GRU"}


def _why_no_static(converted: Converted, settings: Settings, context: Context) -> str:
    if settings.weights != "int8":
        return "int4 weights need method weight-only"
    if settings.activations != "int8":
        return "OpenVINO has no int16 activations"
    if (
        context.profile
        and context.profile.arch == "aarch64"
        and _operators(onnx.load(converted.graph)) & CONVOLUTIONS
    ):
        return "on 64-bit ARM OpenVINO computes int8 convolutions in float, or fails (Cortex-A72)"
    if not context.calls:
        return "static int8 needs calibration data"
    if settings.revert and context.max_drop is None and context.max_class_drop is None:
        return "revert needs a limit of quality, and the budget names none"
    graph = onnx.load(converted.graph)
    if settings.smooth_quant and not _is_transformer(graph):
        return "NNCF smooths transformers only, and this network has no attention"
    if not _operators(graph) & HEAVY:
        return "no convolution or matrix product to quantize"
    return ""


def _why_no_dynamic(converted: Converted, settings: Settings, context: Context) -> str:
    if not _products(onnx.load(converted.graph)):
        return "OpenVINO quantizes the inputs of matrix products only as they come, and none here has weights"
    return _why_no_weights(converted, settings, context)


def _why_no_weights(converted: Converted, settings: Settings, context: Context) -> str:
    del context
    if settings.activations != "int8":
        return "OpenVINO has no int16 activations"
    if settings.revert:
        return "revert needs method static"
    if settings.smooth_quant:
        return "SmoothQuant goes with method static"
    graph = onnx.load(converted.graph)
    if settings.weights == "int4" and not _products(graph):
        return "NNCF stores the weights of matrix products only in int4, and there are none"
    if not _operators(graph) & HEAVY:
        return "no convolution or matrix product to quantize"
    return ""


def _make_static(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    del task
    model, calls = _model(converted), spread(context.calls, settings.samples)
    transformer = _is_transformer(onnx.load(converted.graph))
    if settings.revert:
        quantized = quantize_within(model, calls, settings, context, transformer=transformer)
    else:
        quantized = quantize(
            model, calls, settings, transformer=transformer, reduce_range=context.reduce_range
        )
    return _write(quantized, converted, folder)


def _make_dynamic(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """Weights as in `_make_weights`; the plugin rounds the inputs of matrix products to int8 as they come."""
    group = DYNAMIC_GROUP if settings.weights == "int8" else settings.group_size
    return _make_weights(converted, settings, task, context, folder, {"dynamic_group": group})


def _make_weights(
    converted: Converted,
    settings: Settings,
    task: Task,
    context: Context,
    folder: Path,
    options: Mapping[str, Any] | None = None,
) -> Artifact:
    del task
    if settings.weights == "int8":
        return _write(compress_int8(_model(converted)), converted, folder, options)
    calls = spread(context.calls, settings.samples)

    def make(share: float, place: Path) -> Artifact:
        context.detail(f"{share:.0%} of the weights in int4")
        compressed = compress_int4(_model(converted), calls, group_size=settings.group_size, share=share)
        return _write(compressed, converted, place, options)

    with tempfile.TemporaryDirectory(prefix="edgekit-") as trials:
        # A folder for each: an open session has its file mapped into memory.
        share = share_of_int4(lambda share: make(share, Path(tempfile.mkdtemp(dir=trials))), context)
    return make(share, folder)


def _model(converted: Converted) -> openvino.Model:
    return load().Core().read_model(str(converted.artifact.path))


def _write(
    model: openvino.Model, converted: Converted, folder: Path, options: Mapping[str, Any] | None = None
) -> Artifact:
    names = converted.artifact
    return write(model, folder, inputs=names.inputs, outputs=names.outputs, options=options)


def _operators(graph: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


def _is_transformer(graph: onnx.ModelProto) -> bool:
    return {"Softmax", "MatMul"} <= _operators(graph)


def _products(graph: onnx.ModelProto) -> bool:
    """Whether any matrix product has weights."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    return any(node.op_type in PRODUCTS and weights & set(node.input[:2]) for node in graph.graph.node)


STATIC = Way(
    name="nncf",
    runtime="openvino",
    method="static",
    why_not=_why_no_static,
    make=_make_static,
    left_in_float=left_in_float,
)
WAYS = (
    STATIC,
    Way(
        name="nncf-dynamic",
        runtime="openvino",
        method="dynamic",
        why_not=_why_no_dynamic,
        make=_make_dynamic,
    ),
    Way(
        name="nncf-weight-only",
        runtime="openvino",
        method="weight-only",
        why_not=_why_no_weights,
        make=_make_weights,
    ),
    qat_way("qat", STATIC),
)
