"""Int8 for TensorRT: explicit quantization, symmetric and signed, where its layers take it.

NVIDIA's guide on explicit quantization: Q/DQ on the inputs of convolutions and matrix products, weights per
channel, none on their outputs; on a residual sum only the branch that does not come out of a convolution, so
that the sum joins that convolution. Weights stay float behind their Q/DQ, because TensorRT 8 takes no others:
the file is as large as the float one, the engine on the device is smaller.

TensorRT itself is not yet run on hardware by edgekit; quality is ONNX Runtime's on the same graph.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from edgekit.artifact import Artifact, Converted
from edgekit.compress.context import Context
from edgekit.compress.quantization.int8_onnxruntime import Call, preprocessed, ranges_of
from edgekit.compress.quantization.qat_ways import qat_way
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.way import Way
from edgekit.errors import BadInput
from edgekit.graph.prepare import is_quantized
from edgekit.runtimes.tensorrt import asymmetric, refuse, write
from edgekit.task.record import Task

HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def why_not(converted: Converted, settings: Settings, context: Context) -> str:
    """In words, why TensorRT's int8 is not for this network or these settings; empty where it is."""
    model = onnx.load(converted.artifact.path)
    if is_quantized(model):
        return "it is quantized already and is left alone"
    board = context.profile.tensorrt if context.profile else None
    if board and not board.int8:
        return f"the GPU of {context.profile.name if context.profile else 'the board'} has no int8 arithmetic"
    if not context.calls:
        return "static int8 needs calibration data"
    if not heavy_nodes(model.graph):
        return "no convolution or matrix product with constant weights to quantize"
    if settings.weights != "int8" or settings.activations != "int8":
        return "TensorRT 8 has int8 weights with int8 activations only"
    if settings.smooth_quant:
        return "SmoothQuant is of nncf, which makes no graphs for TensorRT"
    if settings.revert:
        return "no layer is put back to float for TensorRT: nothing of it can be measured here"
    return ""


def make(converted: Converted, settings: Settings, task: Task, context: Context, folder: Path) -> Artifact:
    """The explicitly quantized graph."""
    ready = preprocessed(onnx.load(converted.artifact.path))
    quantized = quantize(ready, context.calls[: settings.samples], settings)
    refuse(quantized, f"the quantized model of {task.name}")
    return write(quantized, folder, "int8")


def heavy_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of convolutions and matrix products with constant weights; attention's own stay float."""
    weights = {tensor.name for tensor in graph.initializer}
    return [n.name for n in graph.node if n.op_type in HEAVY and n.input[1] in weights]


def residual_sums(graph: onnx.GraphProto) -> dict[str, str]:
    """The sums that join a convolution: by name, the input that comes out of it and is read by none else."""
    maker = {name: node.op_type for node in graph.node for name in node.output}
    readers = [name for node in graph.node for name in node.input]
    found = {}
    for node in graph.node:
        if node.op_type != "Add" or not all(name in maker for name in node.input):
            continue
        joined = [n for n in node.input if maker[n] in HEAVY[:2] and readers.count(n) == 1]
        if joined:
            found[node.name] = joined[0]
    return found


def quantize(ready: onnx.ModelProto, calls: Sequence[Call], settings: Settings) -> onnx.ModelProto:
    """Explicit int8 Q/DQ by onnxruntime's quantizer, put where TensorRT wants it.

    Args:
        ready: float graph with named nodes; left as it was.
        calls: calibration calls by input name.
        settings: of these the ranges.

    Raises:
        BadInput: the quantizer left something that is not symmetric.
    """
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.quantize import save_tensors_data

    sums = residual_sums(ready.graph)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        source, ranges, target = (Path(folder) / name for name in ("in.onnx", "ranges", "out.onnx"))
        onnx.save(ready, source)
        found, method = ranges_of(source, calls, settings, Path(folder) / "observed.onnx")
        save_tensors_data(found, ranges)
        ort.quantize_static(
            source,
            target,
            None,
            quant_format=ort.QuantFormat.QDQ,
            per_channel=True,
            activation_type=ort.QuantType.QInt8,
            weight_type=ort.QuantType.QInt8,
            op_types_to_quantize=[*HEAVY, "Add"],
            nodes_to_quantize=[*heavy_nodes(ready.graph), *sums],
            calibrate_method=method,
            calibration_cache_path=ranges,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "AddQDQPairToWeight": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": [*HEAVY, "Add"],
            },
        )
        quantized = onnx.load(target)
    _join(quantized.graph, sums)
    if problem := asymmetric(quantized):
        raise BadInput(problem, where="trt-qdq")
    return quantized


def _join(graph: onnx.GraphProto, sums: dict[str, str]) -> None:
    """Feed each residual sum straight from its convolution, in place; pairs that nobody reads then go."""
    for node in graph.node:
        if node.name in sums:
            made = {n.output[0]: n for n in graph.node}
            for place, name in enumerate(node.input):
                if _source(name, made) == sums[node.name]:
                    node.input[place] = sums[node.name]
    while True:
        read = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
        kept = [n for n in graph.node if any(name in read for name in n.output)]
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)


def _source(name: str, made: dict[str, onnx.NodeProto]) -> str:
    """What a value was before its Q/DQ pair."""
    while name in made and made[name].op_type in {"QuantizeLinear", "DequantizeLinear"}:
        name = made[name].input[0]
    return name


STATIC = Way(name="trt-qdq", runtime="tensorrt", method="static", why_not=why_not, make=make)
WAYS = (STATIC, qat_way("qat", STATIC))
