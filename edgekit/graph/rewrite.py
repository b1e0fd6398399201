"""Rewrites that change no number and keep the quantizers out of their own pitfalls."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from edgekit.graph.prepare import graphs, has_bodies


def stand_off_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which an Identity node stands between each input and the nodes that read it.

    NNCF observes values by making them outputs; for an input that gives a graph that onnxruntime refuses.
    """
    copy = _copy(model)
    graph = copy.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: f"{value.name}_given" for value in graph.input if value.name not in weights}
    for node in graph.node:
        node.input[:] = [inputs.get(name, name) for name in node.input]
    for index, (name, given) in enumerate(inputs.items()):
        graph.node.insert(index, helper.make_node("Identity", [name], [given], name=given))
    return copy


def join_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what `stand_off_inputs` put in, changed in place."""
    graph = model.graph
    given = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.name == f"{node.input[0]}_given"
    }
    kept = [node for node in graph.node if node.output[0] not in given]
    for node in kept:
        node.input[:] = [given.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)
    return model


def transpose_gemms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the constant weights of Gemm nodes are stored transposed and are each node's own.

    onnxruntime's dynamic quantizer transposes them in place, once for each node: a weight that two nodes
    share is then wrong for one of them, silently when it is square.
    """
    copy = _copy(model)
    graph = copy.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for index, node in enumerate(graph.node):
        turned = next((a for a in node.attribute if a.name == "transB" and a.i), None)
        if node.op_type != "Gemm" or turned is None or node.input[1] not in weights:
            continue
        array = numpy_helper.to_array(weights[node.input[1]])
        name = f"{node.input[1]}_transposed_{index}"
        graph.initializer.append(numpy_helper.from_array(array.T.copy(), name))
        node.input[1] = name
        turned.i = 0
    drop_unused_weights(graph)
    return copy


def drop_unused_weights(graph: onnx.GraphProto) -> None:
    """Remove initializers that no node reads, in place; bodies of If and Loop may read outer ones."""
    if has_bodies(graph):
        return
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def drop_unused_domains(model: onnx.ModelProto) -> None:
    """Declare only the operator sets that nodes use, in place: onnxruntime declares all that it knows.

    A version that an older runtime does not know makes it refuse the file, used or not.
    """
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    used = {"", "ai.onnx", *(node.domain for node in nodes)}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
