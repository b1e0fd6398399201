"""Weights alone in integers for onnxruntime: smaller files, at the speed of float or below."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.graph.gemms import plain_gemms, split_gemms
from edgekit.graph.rewrite import drop_unused_weights

Bits = Literal[4, 8]
GROUPS = (16, 32, 64, 128, 256)  # that onnxruntime's MatMulNBits has kernels for
INT8_GROUP = 128
IN_INTEGERS = 4  # accuracy level of MatMulNBits: activations are rounded to int8 on the way in
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def weight_layers(model: onnx.ModelProto) -> dict[str, frozenset[Bits]]:
    """The nodes whose weights can be stored in integers, and in how many bits."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    gemms = set(plain_gemms(model))
    found: dict[str, frozenset[Bits]] = {}
    for node in model.graph.node:
        weight = weights.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or weight.data_type != onnx.TensorProto.FLOAT:
            continue
        if node.op_type in CONVOLUTIONS:
            found[node.name] = frozenset({8})
        elif (node.op_type == "MatMul" and len(weight.dims) == 2) or node.name in gemms:
            found[node.name] = frozenset({4, 8})
    return found


def quantize_weights(model: onnx.ModelProto, bits: Mapping[str, Bits], *, group_size: int) -> onnx.ModelProto:
    """A copy whose weights are integers; inputs, outputs and activations stay float.

    Matrix products become com.microsoft.MatMulNBits, symmetric, with a scale for every group along the inner
    dimension. Convolutions dequantize their weights, one scale an output channel, at every call: that can be
    half as fast as float.

    Args:
        model: float graph, left as it was.
        bits: of the weights of each node that is quantized; convolutions take 8 whatever is asked.
        group_size: weights that share a scale where they have 4 bits; those of 8 bits share it by 128.
    """
    copy = split_gemms(model, set(plain_gemms(model)) & set(bits))
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    together: dict[tuple[Bits, int], set[str]] = {}
    for node in copy.graph.node:
        if node.op_type == "MatMul" and node.name in bits:
            width = bits[node.name]
            group = _group(weights[node.input[1]].dims[0], group_size if width == 4 else INT8_GROUP)
            together.setdefault((width, group), set()).add(node.name)
    for (width, group), names in together.items():
        copy = _in_groups(copy, names, width, group)
    _dequantize_filters(copy, bits)
    drop_unused_weights(copy.graph)
    return copy


def _group(inner: int, most: int) -> int:
    """The size of the groups: no larger than what there is, for weights are padded to whole ones."""
    return max([group for group in GROUPS if group <= min(inner, most)], default=GROUPS[0])


def _in_groups(model: onnx.ModelProto, names: Collection[str], width: int, group: int) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    products = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=width,
        block_size=group,
        is_symmetric=True,
        # With 4 bits onnxruntime is as fast in float as through int8, and closer.
        accuracy_level=IN_INTEGERS if width == 8 else None,
        nodes_to_exclude=[name for name in products if name not in names],
    )
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _dequantize_filters(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Store the weights of these convolutions as int8 with one scale an output channel, in place."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in CONVOLUTIONS and node.name in names:
            array = numpy_helper.to_array(weights[node.input[1]])
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            if node.op_type == "Conv" or groups == 1:
                nodes.append(_stored(model.graph, node, array, axis=int(node.op_type == "ConvTranspose")))
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _stored(graph: onnx.GraphProto, node: onnx.NodeProto, array: np.ndarray, axis: int) -> onnx.NodeProto:
    largest = np.abs(array).max(axis=tuple(a for a in range(array.ndim) if a != axis), keepdims=True)
    scale = np.maximum(largest, 1e-12) / 127
    name = f"{node.name}_filters"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.rint(array / scale).astype(np.int8), f"{name}_int8"),
            numpy_helper.from_array(scale.reshape(-1).astype(np.float32), f"{name}_scale"),
        ]
    )
    node.input[1] = f"{name}_in_float"
    inputs = [f"{name}_int8", f"{name}_scale"]
    return helper.make_node("DequantizeLinear", inputs, [node.input[1]], name=f"{name}_rounded", axis=axis)
