"""The ways of quantizing for ONNX Runtime.

None is best everywhere. On an ImageNet MobileNetV2 nncf's defaults are five times slower than float and
onnxruntime's dynamic route ten times; on a transformer the dynamic route wins. So each is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx

from edgekit.artifact import Artifact, Converted
from edgekit.compress.calls import spread
from edgekit.compress.context import Context
from edgekit.compress.quantization.int8_onnxruntime import quantize_dynamic
from edgekit.compress.quantization.limits import room_for_float, small_and_fast
from edgekit.compress.quantization.onnx_static import (
    Quantized,
    best_of_equalised,
    by_nncf,
    by_onnxruntime,
    fill,
    ranking_calls,
    revert,
    settled,
)
from edgekit.compress.quantization.qat_ways import qat_way
from edgekit.compress.quantization.sensitivity import Error, output_error
from edgekit.compress.quantization.settings import Method, Settings
from edgekit.compress.quantization.way import Way
from edgekit.compress.quantization.weights_mixed import widest
from edgekit.compress.quantization.weights_onnxruntime import GROUPS, quantize_weights, weight_layers
from edgekit.errors import BadInput
from edgekit.graph.fusion import count_float_nodes, count_integer_nodes, optimised
from edgekit.graph.prepare import graphs
from edgekit.graph.run import opened, refuse_crash
from edgekit.runtimes.onnxruntime import write
from edgekit.task.record import Task
from edgekit.verify import OPTIMISER_FLOOR_DB, check_graph

HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU"})
PARITY_CALLS = 4


def left_in_float(artifact: Artifact) -> int:
    """Convolutions and matrix products that onnxruntime computes in float after its own optimisation."""
    return count_float_nodes(optimised(onnx.load(artifact.path)))


def _operators(converted: Converted) -> tuple[set[str], set[str]]:
    """Those of the graph itself, and those inside bodies of If, Loop and Scan."""
    outer, *bodies = graphs(onnx.load(converted.graph, load_external_data=False).graph)
    return {node.op_type for node in outer.node}, {node.op_type for body in bodies for node in body.node}


def _out_of_reach(converted: Converted) -> str:
    """Why no quantizer finds anything in this graph; empty where it does."""
    operators, inner = _operators(converted)
    if operators & HEAVY:
        return ""
    if inner & HEAVY:
        return "the weights lie inside If or Loop bodies, where no quantizer reaches them"
    return "no convolution or matrix product to quantize"


def _int8_only(settings: Settings) -> str:
    if settings.weights != "int8":
        return f"onnxruntime computes on int8, not on {settings.weights}; method weight-only stores int4"
    if settings.activations != "int8":
        return "onnxruntime has no kernels for int16 activations on a CPU; LiteRT has"
    return ""


def _why_not_static(converted: Converted, settings: Settings, context: Context) -> str:
    if why := _out_of_reach(converted) or _int8_only(settings):
        return why
    if settings.revert and context.max_drop is None and context.max_class_drop is None:
        return "revert needs a limit of quality, and the budget names none"
    if not (_operators(converted)[0] & HEAVY) - {"LSTM", "GRU"}:
        return "recurrent layers alone are heavy, and they have no static kernels"
    return "" if context.calls else "needs calibration data; give --calibration, or use method dynamic"


def _why_not_nncf(converted: Converted, settings: Settings, context: Context) -> str:
    if settings.ranges == "entropy":
        return "nncf has no entropy ranges; route ort-static has"
    return _why_not_static(converted, settings, context)


def _why_not_ort_static(converted: Converted, settings: Settings, context: Context) -> str:
    if settings.smooth_quant:
        return "onnxruntime's quantizer has no SmoothQuant of its own; route nncf has"
    return _why_not_static(converted, settings, context)


def _why_not_mixed(converted: Converted, settings: Settings, context: Context) -> str:
    if why := room_for_float(context):
        return why
    return _why_not_ort_static(converted, settings, context)


def _why_not_dynamic(converted: Converted, settings: Settings, context: Context) -> str:
    del context
    if why := _out_of_reach(converted) or _int8_only(settings):
        return why
    if settings.smooth_quant:
        return "SmoothQuant goes with method static"
    if settings.revert:
        return "layers are put back to float with method static"
    if not _operators(converted)[0] & {"MatMul", "Gemm", "LSTM"}:
        return "onnxruntime has dynamic kernels for matrix products and LSTMs only"
    return ""


def _why_not_weights(converted: Converted, settings: Settings, context: Context) -> str:
    del context
    if settings.activations != "int8":
        return "activations stay float with method weight-only"
    if settings.revert:
        return "layers are put back to float with method static"
    if settings.weights == "int4" and settings.group_size not in GROUPS:
        known = ", ".join(map(str, GROUPS))
        return f"onnxruntime has no kernel for groups of {settings.group_size} weights (known: {known})"
    layers = weight_layers(onnx.load(converted.graph))
    if settings.weights == "int4" and not any(4 in bits for bits in layers.values()):
        return "onnxruntime has int4 weights for matrix products only, and there is none"
    return "" if layers else _out_of_reach(converted) or "no weight of float32 to store"


def _static(
    library: str, converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    del task
    quantized, error = _quantized(library, converted, settings, context)
    kept = revert(quantized, error, context) if settings.revert else ()
    if kept:
        context.detail(f"back in float: {', '.join(kept)}")
    return _finish(settled(quantized, kept), converted, context, folder)


def _mixed(converted: Converted, settings: Settings, task: Task, context: Context, folder: Path) -> Artifact:
    del task
    quantized, error = _quantized("onnxruntime", converted, settings, context)
    kept = fill(
        quantized, error, context, lambda artifact: small_and_fast(artifact, converted.artifact, context)
    )
    if not kept:
        raise BadInput("no layer in float fits under the limits of size and latency")
    return _finish(settled(quantized, kept), converted, context, folder)


def _quantized(
    library: str, converted: Converted, settings: Settings, context: Context
) -> tuple[Quantized, Error]:
    model, calls = onnx.load(converted.graph), spread(context.calls, settings.samples)
    error = output_error(opened(model), ranking_calls(context))
    by = by_onnxruntime(calls, settings, context)
    if library == "nncf":
        by = by_nncf(calls, settings, context, error)
    return best_of_equalised(model, by, calls, error), error


def _dynamic(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    del settings, task
    graph = quantize_dynamic(onnx.load(converted.graph), reduce_range=context.reduce_range)
    return _finish(graph, converted, context, folder)


def _weight_only(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    del task
    model = onnx.load(converted.graph)
    layers = weight_layers(model)
    wide = {name for name, bits in layers.items() if 4 not in bits}
    if settings.weights == "int8":
        wide = set(layers)
    else:
        wide.update(widest(model, context, group_size=settings.group_size))
    graph = quantize_weights(
        model, {name: 8 if name in wide else 4 for name in layers}, group_size=settings.group_size
    )
    return _finish(graph, converted, context, folder, integers=False)


def _finish(
    graph: onnx.ModelProto, converted: Converted, context: Context, folder: Path, *, integers: bool = True
) -> Artifact:
    """Write the graph, once it is seen to work: onnxruntime can die of one, or rewrite it wrongly.

    Raises:
        BadInput: it does not, or nothing computes on integers where something should.
        VerificationFailed: onnxruntime's optimiser changes what it computes.
    """
    float_version = onnx.load(converted.graph, load_external_data=False).ir_version
    graph.ir_version = min(graph.ir_version, float_version)
    del graph.graph.value_info[:]
    refuse_crash(graph)
    if integers and not count_integer_nodes(optimised(graph)):
        raise BadInput("nothing was quantized: no node computes on integers")
    calls = context.calls[:PARITY_CALLS] or [context.example]
    check_graph("optimiser off -> on", graph, graph, calls, OPTIMISER_FLOOR_DB)
    return write(graph, folder)


def _way(
    name: str,
    method: Method,
    why_not: Callable[[Converted, Settings, Context], str],
    make: Callable[[Converted, Settings, Task, Context, Path], Artifact],
) -> Way:
    return Way(
        name=name,
        runtime="onnxruntime",
        method=method,
        why_not=why_not,
        make=make,
        left_in_float=left_in_float,
    )


_NNCF = _way("nncf", "static", _why_not_nncf, partial(_static, "nncf"))
_ORT_STATIC = _way("ort-static", "static", _why_not_ort_static, partial(_static, "onnxruntime"))

WAYS = (
    _NNCF,
    _ORT_STATIC,
    replace(_way("ort-mixed", "static", _why_not_mixed, _mixed), by_itself=False),
    _way("ort-dynamic", "dynamic", _why_not_dynamic, _dynamic),
    _way("ort-weight-only", "weight-only", _why_not_weights, _weight_only),
    qat_way("qat", _ORT_STATIC),
)
