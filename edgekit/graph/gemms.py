"""Gemm nodes as the MatMul and Add that they are short for."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.graph.rewrite import drop_unused_weights


def plain_gemms(model: onnx.ModelProto) -> list[str]:
    """The names of the Gemm nodes with constant weights that are no more than a product and a sum."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if _is_plain(node) and node.input[1] in weights]


def split_gemms(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy in which these Gemm nodes are a MatMul of the same name and an Add.

    onnxruntime has a kernel with integers in and floats out for MatMul, and for Gemm only where its bias is
    quantized as well.

    Args:
        model: left as it was.
        names: some of `plain_gemms`.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    nodes = []
    for node in copy.graph.node:
        if node.op_type != "Gemm" or node.name not in names:
            nodes.append(node)
            continue
        array = numpy_helper.to_array(weights[node.input[1]])
        if any(a.name == "transB" and a.i for a in node.attribute):
            array = np.ascontiguousarray(array.T)
        weight, product = f"{node.name}_factor", f"{node.name}_product"
        copy.graph.initializer.append(numpy_helper.from_array(array, weight))
        has_bias = len(node.input) > 2
        output = product if has_bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [output], name=node.name))
        if has_bias:
            sum_of = [product, node.input[2]]
            nodes.append(helper.make_node("Add", sum_of, list(node.output), name=f"{node.name}_bias"))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    drop_unused_weights(copy.graph)
    return copy


def _is_plain(node: onnx.NodeProto) -> bool:
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return node.op_type == "Gemm" and all(
        helper.get_attribute_value(a) == plain[a.name] for a in node.attribute if a.name in plain
    )
