"""TFLite: a .tflite file by litert-torch, in full or half precision."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact, Converted
from edgekit.errors import BadInput, first_line
from edgekit.runtimes.program import (
    example_tensors,
    export_program,
    flat,
    forget_recurrent_kernels,
    place_of_operator,
    quiet,
)
from edgekit.runtimes.tflite_aeq import Recipe, quantized
from edgekit.runtimes.tflite_edges import with_float_edges
from edgekit.runtimes.tflite_file import not_with
from edgekit.runtimes.tflite_onnx import torch_network

if TYPE_CHECKING:
    import onnx
    import torch

    from edgekit.task.record import Task

FILE = "model.tflite"
OTHERS = "take another runtime (onnxruntime, openvino)"

_LOWERED = re.compile(r"target=torch\.ops\.(\w+)\.(\w+)")


def convert(
    graph: onnx.ModelProto,
    network: torch.nn.Module | None,
    task: Task,
    folder: Path,
    notes: list[str],
) -> Artifact:
    """The float file; see `edgekit.runtimes.convert.convert`.

    A task that brings no network that torch.export can follow (an ONNX file, TorchScript) goes over its ONNX
    graph. Recurrent layers come apart into a step a frame.

    Raises:
        BadInput: the task has a dynamic axis, or an operator without a counterpart in TFLite.
    """
    import torch

    refuse_dynamic(task)
    if network is None or isinstance(network, torch.jit.ScriptModule):
        network = torch_network(graph, task)
        notes.append("converted for tflite from the ONNX graph, by onnx2fx")
    names = [value.name for value in graph.graph.output]
    return lower(network, task, names, folder)


def refuse_dynamic(task: Task) -> None:
    """Refuse a task that was to have a dynamic axis.

    Raises:
        BadInput: it has one; the file would have its size in the example.
    """
    for spec in task.inputs:
        if names := [size for size in spec.shape if isinstance(size, str)]:
            raise BadInput(
                f"the axis `{names[0]}` is dynamic; a TFLite file is made for sizes known beforehand",
                where=f"input `{spec.name}` of {task.name}",
                todo="declare a fixed size with --input-shape, or take another runtime",
            )


def lower(
    network: torch.nn.Module, task: Task, outputs: Sequence[str], folder: Path, quantizer: Any = None
) -> Artifact:
    """The artifact of a torch network, float or quantized by PT2E.

    Args:
        network: in evaluation mode; left as it was. One of PT2E's is an exported program already.
        task: gives the names of the inputs and the example.
        outputs: their names, in the order of the network's.
        folder: empty; the artifact is written into it.
        quantizer: what PT2E quantized the network with.

    Raises:
        BadInput: an operator has no counterpart in TFLite; names it and its place.
    """
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    with quiet():
        import litert_torch
        from litert_torch.quantize.quant_config import QuantConfig

        config = QuantConfig(pt2e_quantizer=quantizer) if quantizer is not None else None
        forget_recurrent_kernels()
        try:
            # Left to itself the converter makes int64 inputs and outputs int32.
            found = litert_torch.convert(
                network if config else flat(network),
                example_tensors(task),
                quant_config=config,
                enable_x64=True,
            )
        except Exception as error:
            raise _refused(error, network, task) from error
    (folder / FILE).write_bytes(with_float_edges(found.model_content()) if config else found.model_content())
    return artifact(folder / FILE, tuple(spec.name for spec in task.inputs), outputs)


def artifact(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Artifact:
    """A file as an artifact, with what cannot run it among its options."""
    unfit = not_with(path)
    return Artifact(
        runtime="tflite",
        path=path,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        options={"not_with": unfit} if unfit else {},
    )


def half(converted: Converted, precision: str, folder: Path) -> Artifact:
    """Weights in float16; inputs, outputs and, on a CPU, arithmetic stay float32.

    Raises:
        BadInput: the precision is bfloat16, or no layer has weights to store.
    """
    if precision != "float16":
        raise BadInput("TFLite has no bfloat16 weights", where="half", todo="use float16")
    found = quantized(converted.artifact.path, Recipe(method="float16"))
    if len(found) >= converted.artifact.size_bytes:
        raise BadInput("float16 makes it no smaller", where="half")
    (folder / FILE).write_bytes(found)
    return artifact(folder / FILE, converted.artifact.inputs, converted.artifact.outputs)


def _refused(error: Exception, network: torch.nn.Module, task: Task) -> BadInput:
    """What the converter did not take, and where it stands in the user's model."""
    import torch

    met = _LOWERED.search(str(error))
    name = f"{met[1]}.{met[2]}" if met else ""
    where = f"the model of {task.name}"
    if not isinstance(network, torch.fx.GraphModule):
        program = export_program(network, task)  # raises what torch.export itself cannot follow
        where = place_of_operator(program, name) or where
    if not met:
        return BadInput(f"litert-torch cannot convert it: {first_line(error)}", where=where, todo=OTHERS)
    return BadInput(
        f"TFLite has no counterpart of the operator {name}",
        where=where,
        todo=f"replace it in the network, or {OTHERS}",
    )
