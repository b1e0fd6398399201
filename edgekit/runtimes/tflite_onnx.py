"""An ONNX graph as a torch network, for the runtime whose converter takes nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.errors import BadInput, first_line
from edgekit.graph.prepare import graphs

if TYPE_CHECKING:
    import onnx
    import torch

    from edgekit.task.record import Task

# A trace at the example call would keep one side of the first three, and one size of what the others give.
UNTRACEABLE = frozenset("If Loop Scan NonZero NonMaxSuppression Unique Compress".split())


def torch_network(graph: onnx.ModelProto, task: Task) -> torch.nn.Module:
    """The graph as a torch module of ATen operators, at the sizes of the example call.

    onnx2fx interprets the graph by torch functions that compute sizes from tensors, which torch.export does
    not follow; so it is traced once more with the example, where all sizes are numbers.

    Args:
        graph: left as it was.
        task: gives the example call.

    Raises:
        BadInput: a node has no counterpart in torch, or what it gives depends on values; names the node.
        ImportError: onnx2fx is not installed.
    """
    import onnx2fx
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    from edgekit.runtimes.program import example_tensors, quiet

    where = f"the ONNX file of {task.name}"
    for part in graphs(graph.graph):
        for node in part.node:
            if node.op_type in UNTRACEABLE:
                raise BadInput(
                    f"TFLite takes no {node.op_type}: what it gives depends on the values of its inputs",
                    where=f"node `{node.name or node.output[0]}` in {where}",
                    todo="take another runtime (onnxruntime, openvino)",
                )
    try:
        with quiet(), torch.no_grad():
            network = onnx2fx.convert(graph).eval()
            return make_fx(network, tracing_mode="real")(*example_tensors(task)).eval()
    except Exception as error:
        raise BadInput(
            f"cannot be taken over into torch: {first_line(error)}",
            where=where,
            todo="give the torch network, or take another runtime (onnxruntime, openvino)",
        ) from error
