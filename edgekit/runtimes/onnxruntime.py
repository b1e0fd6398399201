"""ONNX Runtime: its artifact is the float graph itself; float16 by its own converter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from edgekit.artifact import Artifact, Converted
from edgekit.errors import BadInput, first_line
from edgekit.graph.prepare import has_bodies
from edgekit.graph.rewrite import drop_unused_domains
from edgekit.graph.run import refuse_crash

if TYPE_CHECKING:
    import torch

    from edgekit.task.record import Task

RECURRENT = ("LSTM", "GRU", "RNN")  # onnxruntime dies of them in float16
FILE = "model.onnx"


def convert(
    graph: onnx.ModelProto,
    network: torch.nn.Module | None,
    task: Task,
    folder: Path,
    notes: list[str],
) -> Artifact:
    """The float graph as a file; see `edgekit.runtimes.convert.convert`."""
    del network, task, notes
    return write(graph, folder)


def write(graph: onnx.ModelProto, folder: Path) -> Artifact:
    """An ONNX graph as an artifact of onnxruntime, in one file."""
    drop_unused_domains(graph)
    onnx.save(graph, folder / FILE)
    return as_artifact(folder / FILE)


def as_artifact(path: Path) -> Artifact:
    """An ONNX file as an artifact of onnxruntime."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return Artifact(
        runtime="onnxruntime",
        path=path,
        inputs=tuple(value.name for value in graph.input if value.name not in weights),
        outputs=tuple(value.name for value in graph.output),
    )


def half(converted: Converted, precision: str, folder: Path) -> Artifact:
    """The float16 graph; inputs and outputs keep their types.

    Raises:
        BadInput: the precision is bfloat16, or the converter cannot treat the graph.
    """
    where = "half"
    if precision != "float16":
        raise BadInput("onnxruntime has no bfloat16 kernels on a CPU", where=where, todo="use float16")
    graph = onnx.load(converted.graph)
    if has_bodies(graph.graph):
        raise BadInput("If, Loop and Scan nodes cannot be stored as float16", where=where)
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    before = graph.ByteSize()
    try:
        found: onnx.ModelProto = convert_float_to_float16(
            graph, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *RECURRENT]
        )
    except Exception as error:
        raise BadInput(f"cannot be stored as float16: {first_line(error)}", where=where) from error
    if found.ByteSize() >= before:
        raise BadInput("float16 makes it no smaller", where=where)
    del found.graph.value_info[:]
    _name_apart(found.graph)
    refuse_crash(found)
    return write(found, folder)


def _name_apart(graph: onnx.GraphProto) -> None:
    """Number the nodes that share a name, in place: the converter names two casts of one value alike."""
    met: Counter[str] = Counter()
    for node in graph.node:
        met[node.name] += 1
        if met[node.name] > 1:
            node.name = f"{node.name}_{met[node.name]}"
