"""Put the branch that an If node takes into the graph around it, so that its work can be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper

from edgekit.graph.run import observe


def unfold(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph of one call without its If nodes: each is replaced by the branch that this call takes.

    Loop and Scan nodes stay. The model itself where it has no If nodes.

    Args:
        model: left as it was.
        inputs: one call.

    Raises:
        BadInput: the graph does not run on these inputs.
    """
    flat = model
    while any(node.op_type == "If" for node in flat.graph.node):
        copy = onnx.ModelProto()
        copy.CopyFrom(flat)
        _unfold_once(copy, inputs)
        flat = copy
    return flat


def _unfold_once(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> None:
    """Unfold the outermost If nodes in place; those inside of them come to the top."""
    graph = model.graph
    conditions = {node.input[0] for node in graph.node if node.op_type == "If"}
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer} | dict(inputs)
    asked = [name for name in conditions if name not in known]
    values = {**known, **(observe(model, inputs, asked) if asked else {})}
    nodes = []
    for index, node in enumerate(graph.node):
        if node.op_type != "If":
            nodes.append(node)
            continue
        wanted = "then_branch" if bool(values[node.input[0]].all()) else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        nodes += _inline(branch, node, graph, f"if{index}/")
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def _inline(
    branch: onnx.GraphProto, node: onnx.NodeProto, graph: onnx.GraphProto, prefix: str
) -> list[onnx.NodeProto]:
    """The branch's nodes under names of their own, then one Identity for each output of the If node."""
    own = {name for inner in branch.node for name in inner.output if name}
    own |= {tensor.name for tensor in branch.initializer}
    names = {name: prefix + name for name in own}
    nodes = []
    for inner in branch.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        _rename(copy, names)
        nodes.append(copy)
    for tensor in branch.initializer:
        weight = graph.initializer.add()
        weight.CopyFrom(tensor)
        weight.name = names[tensor.name]
    ends = zip(branch.output, node.output, strict=True)
    return nodes + [
        helper.make_node("Identity", [names.get(inside.name, inside.name)], [outside])
        for inside, outside in ends
        if outside
    ]


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Give the values that a node and the bodies in it read and write their new names, in place."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for inner in _bodies(node):
        for output in inner.output:
            output.name = names.get(output.name, output.name)
        for child in inner.node:
            _rename(child, names)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    return (item.g for item in node.attribute if item.type == onnx.AttributeProto.GRAPH)
