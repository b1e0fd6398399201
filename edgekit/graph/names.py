"""Give the nodes of an exported graph the names that the user's own model has for them."""

from __future__ import annotations

import ast
from collections import Counter

import onnx


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name each node after the module that made it, `layer1.0.conv1/Conv`, in place.

    What the exporter writes about itself is dropped: its stack traces carry paths of this machine, and a
    bundle must not differ by the folder in which it was built.
    """
    weights = {tensor.name for tensor in graph.initializer}
    used: Counter[str] = Counter()
    for node in graph.node:
        scope = _scope(node, weights)
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name] - 1}"
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.value_info, *graph.input, *graph.output):
        del value.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
    del graph.metadata_props[:]


def _scope(node: onnx.NodeProto, weights: set[str]) -> str:
    """The module path: of the node's own weight where it has one, else of the exporter's record."""
    weight = next((name for name in node.input if name in weights and "." in name), None)
    if weight is not None:
        return str(weight).rpartition(".")[0]
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
    path = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]
    return str(path[-1]) if path else ""
