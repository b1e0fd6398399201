"""torch itself as a runtime: an exported program (.pt2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import Artifact
from edgekit.errors import BadInput
from edgekit.runtimes.program import export_program, quiet

if TYPE_CHECKING:
    import onnx
    import torch
    from torch.export import ExportedProgram

    from edgekit.task.record import Task

FILE = "model.pt2"


def convert(
    graph: onnx.ModelProto,
    network: torch.nn.Module | None,
    task: Task,
    folder: Path,
    notes: list[str],
) -> Artifact:
    """The float program; see `edgekit.runtimes.convert.convert`.

    Raises:
        BadInput: the task brings no torch network, or torch.export cannot follow it.
    """
    del notes
    if network is None:
        raise BadInput(
            "the torch runtime takes torch networks only",
            where=f"the ONNX file of {task.name}",
            todo="give the torch network, or take onnxruntime, openvino or tflite",
        )
    return save(export_program(network, task), task, [value.name for value in graph.graph.output], folder)


def save(program: ExportedProgram, task: Task, outputs: Sequence[str], folder: Path) -> Artifact:
    """The artifact of an exported program, float or quantized; its nodes lose their source lines."""
    import torch

    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in ("stack_trace", "from_node"):  # paths and addresses of this very run
                node.meta.pop(key, None)
    with quiet():
        torch.export.save(program, folder / FILE)
    return Artifact(
        runtime="torch",
        path=folder / FILE,
        inputs=tuple(spec.name for spec in task.inputs),
        outputs=tuple(outputs),
    )
