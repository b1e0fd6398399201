"""Where in the user's own model a node of the graph comes from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import PurePath

import onnx

from edgekit.graph.prepare import graphs

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_LIBRARIES = frozenset({"torch", "site-packages", "dist-packages", "onnxscript"})


def origin_of(node: onnx.NodeProto) -> str:
    """The place of a node in words: "`layer1.0.conv1` (resnet.py:31)", "node `layer1.0.conv1/Conv`".

    The dynamo exporter records the path of modules and the lines of source that led to a node. Where that is
    gone, or the file came from elsewhere, its name must do: the nodes of an exported network are named after
    their module.
    """
    recorded = {entry.key: entry.value for entry in node.metadata_props}
    # A convolution that took in its batch norm is recorded as the latter; its weight knows better.
    weight = next((name for name in node.input if name.endswith(".weight")), "")
    scope = weight.rpartition(".")[0] or _module_path(recorded.get("pkg.torch.onnx.name_scopes", ""))
    line = _source_line(recorded.get("pkg.torch.onnx.stack_trace", ""))
    name = f"`{scope}`" if scope else _name(node)
    return f"{name} ({line})" if line else name


def origins_of(model: onnx.ModelProto, operator: str, most: int = 3) -> str:
    """The places of all nodes of one operator, in bodies of If and Loop too; of many the first few.

    Args:
        model: the graph.
        operator: the operator's name, without its domain.
        most: named one by one, before the rest is counted.
    """
    return listed(
        [origin_of(node) for graph in graphs(model.graph) for node in graph.node if node.op_type == operator],
        most,
    )


def node_named(model: onnx.ModelProto, name: str) -> onnx.NodeProto | None:
    """The node of that name, in bodies of If and Loop too."""
    found = (node for graph in graphs(model.graph) for node in graph.node if node.name == name)
    return next(found, None)


def listed(places: Iterable[str], most: int = 3) -> str:
    """Places in one line, each once; of many the first few and how many more."""
    each = list(dict.fromkeys(places))
    more = f" and {len(each) - most} more" if len(each) > most else ""
    return ", ".join(each[:most]) + more


def _name(node: onnx.NodeProto) -> str:
    if node.name:
        return f"node `{node.name}`"
    written = next((name for name in node.output if name), "")
    return f"the {node.op_type} that writes `{written}`"


def _module_path(scopes: str) -> str:
    """The innermost module: the record is a list of paths, each longer than the one before, then the call."""
    try:
        paths = ast.literal_eval(scopes)[:-1]
    except (ValueError, SyntaxError):
        return ""
    return next((str(path) for path in reversed(paths) if path), "")


def _source_line(trace: str) -> str:
    """The innermost line of the trace that is not a library's own."""
    frames = [(PurePath(match["file"]), match["line"]) for match in _FRAME.finditer(trace)]
    own = [(path, line) for path, line in frames if not _LIBRARIES & set(path.parts)]
    return f"{own[-1][0].name}:{own[-1][1]}" if own else ""
