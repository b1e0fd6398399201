"""What onnxruntime's optimiser makes of a quantized graph, and zero points that let it fuse everything."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edgekit.graph.rewrite import drop_unused_weights
from edgekit.graph.run import refused

_FLOAT_OPS = frozenset({"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})

_MOVES = frozenset("Reshape Flatten Transpose Squeeze Unsqueeze Identity".split())


def optimised(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph as onnxruntime runs it on this machine after its own optimisation.

    Raises:
        BadInput: onnxruntime refuses the graph.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        with refused("the quantized model"):
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path).graph


def count_float_nodes(graph: onnx.GraphProto) -> int:
    """Convolutions and matrix products of an optimised graph that compute in float.

    One between Q/DQ pairs dequantizes, computes and quantizes again: many of them are slower than no int8.
    """
    return sum(node.op_type in _FLOAT_OPS for node in graph.node)


def count_integer_nodes(graph: onnx.GraphProto) -> int:
    """Nodes of an optimised graph that really compute on integers."""
    return sum(
        node.op_type.startswith(
            ("QLinear", "QGemm", "QAttention", "DynamicQuantize", "MatMulInteger", "ConvInteger")
        )
        for node in graph.node
        if node.op_type != "DynamicQuantizeLinear"
    )


def unfused_nodes(graph: onnx.GraphProto) -> list[str]:
    """Convolutions and matrix products of an optimised graph that stand in float between Q/DQ pairs.

    Each dequantizes its input, computes in float and quantizes again, although its neighbours on both sides
    compute on integers: onnxruntime should have fused it and has not. A layer that was put back to float
    reads what was never rounded, or gives it, and is none of these.
    """
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {value.name: [] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return [
        _source_name(node)
        for node in graph.node
        if node.op_type in _FLOAT_OPS and node.input[0] in dequantized and _is_rounded(node, readers)
    ]


def dequantizing_nodes(graph: onnx.GraphProto) -> list[str]:
    """Convolutions and matrix products of an optimised graph that dequantize their weights at each call.

    They compute in float: nothing quantizes what they give, or there is no kernel.
    """
    weights = {tensor.name for tensor in graph.initializer}
    dequantized = {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    return [
        _source_name(node)
        for node in graph.node
        if node.op_type in _FLOAT_OPS and node.input[1] in dequantized
    ]


def _source_name(node: onnx.NodeProto) -> str:
    """The name that a node had before onnxruntime joined it with others."""
    return node.name.removeprefix("fused ").removesuffix("/MatMulAddFusion")


def _is_rounded(node: onnx.NodeProto, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> bool:
    """Whether all that reads the node's output, past activations, quantizes it."""
    following = readers.get(node.output[0], ())
    return bool(following) and all(
        reader.op_type == "QuantizeLinear"
        or (reader.op_type in ("Relu", "Clip") and _is_rounded(reader, readers))
        for reader in following
    )


def use_uint8_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which signed activations are unsigned: int8 with zero point z becomes uint8 with z + 128.

    The numbers are the same; onnxruntime on x86 has fused kernels only for unsigned activations.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = [
        node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in weights
    ]
    written = {name for node in quantizers for name in node.output}
    pairs = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in written]
    for node in (*quantizers, *pairs):
        if len(node.input) < 3 or node.input[2] not in weights:
            continue
        zero = numpy_helper.to_array(weights[node.input[2]])
        if zero.dtype != np.int8:
            continue
        name = f"{node.input[2]}_uint8"
        if name not in weights:
            shifted = numpy_helper.from_array((zero.astype(np.int16) + 128).astype(np.uint8), name)
            graph.initializer.append(shifted)
            weights[name] = shifted
        node.input[2] = name
        for attribute in [a for a in node.attribute if a.name == "output_dtype"]:
            node.attribute.remove(attribute)
    drop_unused_weights(graph)
    del graph.value_info[:]
    return copy


def quantize_gemm_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the biases of its quantized Gemm nodes as 32-bit integers, changed in place.

    The scale is the product of those of data and weights, so that the sum is one of integers. With a float
    bias onnxruntime dequantizes the weights at every call and computes in float.
    """
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    writers = {name: node for node in graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Gemm" and len(node.input) > 2:
            scales = [_scale(name, writers, weights) for name in node.input[:2]]
            bias = weights.get(node.input[2])
            if bias is not None and bias.ndim == 1 and scales[0] is not None and scales[1] is not None:
                nodes.append(_rounded_bias(graph, node, bias, np.asarray(scales[0] * scales[1], np.float32)))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused_weights(graph)
    return model


def _scale(
    name: str, writers: Mapping[str, onnx.NodeProto], weights: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """The scale by which a value was dequantized, before it was moved around; None where it was not."""
    writer = writers.get(name)
    while writer is not None and writer.op_type in _MOVES:
        writer = writers.get(writer.input[0])
    return (
        weights.get(writer.input[1]) if writer is not None and writer.op_type == "DequantizeLinear" else None
    )


def _rounded_bias(
    graph: onnx.GraphProto, node: onnx.NodeProto, bias: np.ndarray, scale: np.ndarray
) -> onnx.NodeProto:
    name = f"{node.name}_bias_rounded"
    limit = np.iinfo(np.int32).max
    rounded = np.clip(np.rint(bias / scale), -limit, limit).astype(np.int32)
    graph.initializer.append(numpy_helper.from_array(rounded, f"{name}_int32"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    node.input[2] = name
    inputs = [f"{name}_int32", f"{name}_scale"]
    return helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}_dequantized", axis=0)
