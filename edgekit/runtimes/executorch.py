"""ExecuTorch: a program (.pte) whose operators are XNNPACK's as far as it has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact
from edgekit.errors import BadInput, count, first_line
from edgekit.runtimes.program import export_program, place, place_of_operator, quiet

if TYPE_CHECKING:
    import onnx
    import torch
    from torch.export import ExportedProgram

    from edgekit.task.record import Task

FILE = "model.pte"
SHOWN = 4  # operators that a note names

# Of the graph's bookkeeping, and none of it computes.
_NO_OPERATOR = re.compile(r"getitem|call_delegate|alloc|dim_order")
_NOT_CORE = re.compile(r"Operator torch\._ops\.(\w+)\.(\w+)(?:\.\w+)? is not in Core ATen")
_BAD_TYPES = re.compile(r"mismatched dtypes.*?EdgeOpOverload: (\w+)\.(\w+)", re.DOTALL)
_KERNEL = re.compile(r"(\w+)::(\w+)\S*: 0x")


def convert(
    graph: onnx.ModelProto,
    network: torch.nn.Module | None,
    task: Task,
    folder: Path,
    notes: list[str],
) -> Artifact:
    """The float program; see `edgekit.runtimes.convert.convert`.

    Recurrent layers come apart into a step a frame. What XNNPACK has not runs in ExecuTorch's own kernels,
    which is said in the notes.

    Raises:
        BadInput: the task brings no torch network, has a dynamic axis, or has an operator without a kernel.
    """
    program = exported(network, task)
    outputs = [value.name for value in graph.graph.output]
    return lower(program, task, outputs, folder, notes)


def exported(network: torch.nn.Module | None, task: Task) -> ExportedProgram:
    """The network as an exported program of fixed sizes.

    Raises:
        BadInput: the task brings no torch network, has a dynamic axis, or torch.export cannot follow it.
    """
    if network is None:
        raise BadInput(
            "ExecuTorch takes torch networks only",
            where=f"the ONNX file of {task.name}",
            todo="give the torch network, or take onnxruntime, openvino or tflite",
        )
    for spec in task.inputs:
        if names := [size for size in spec.shape if isinstance(size, str)]:
            raise BadInput(
                f"the axis `{names[0]}` is dynamic; ExecuTorch plans its memory for sizes known beforehand",
                where=f"input `{spec.name}` of {task.name}",
                todo="declare a fixed size with --input-shape, or take another runtime",
            )
    return export_program(network, task)


def lower(
    program: ExportedProgram, task: Task, outputs: Sequence[str], folder: Path, notes: list[str]
) -> Artifact:
    """The artifact of an exported program, float or quantized, run once on the example.

    Args:
        program: left as it was.
        task: gives the names of the inputs and the example.
        outputs: their names, in the order of the program's.
        folder: empty; the artifact is written into it.
        notes: takes which operators are not XNNPACK's.

    Raises:
        BadInput: an operator has no kernel; names it and its place in the user's model.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with quiet():
        try:
            edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            # Before `to_executorch`, which writes its own buffers into the same graph.
            module = edge.exported_program().graph_module
            own = list(_own_operators(module))
            total = len(own) + _delegated(module)
            done = edge.to_executorch()
        except Exception as error:
            raise _refused(error, program, task) from error
    (folder / FILE).write_bytes(done.buffer)
    artifact = Artifact(
        runtime="executorch",
        path=folder / FILE,
        inputs=tuple(spec.name for spec in task.inputs),
        outputs=tuple(outputs),
    )
    _refuse_missing(done, own, task)
    _try(artifact, own, task)
    if own:
        notes.append(_describe(own, total))
    return artifact


def _own_operators(module: torch.fx.GraphModule) -> Iterator[tuple[str, str]]:
    """Operators that ExecuTorch's own kernels compute: ("aten.mean", "module `head`")."""
    for node in module.graph.nodes:
        if node.op == "call_function" and not _NO_OPERATOR.search(str(node.target)):
            yield _name(node.target), place(node)


def _delegated(module: torch.fx.GraphModule) -> int:
    """How many operators XNNPACK computes."""
    parts = [getattr(module, node.target) for node in module.graph.nodes if node.op == "get_attr"]
    return sum(
        node.op == "call_function" and not _NO_OPERATOR.search(str(node.target))
        for part in parts
        if hasattr(part, "original_module")
        for node in part.original_module.graph.nodes
    )


def _name(target: Any) -> str:
    """`aten::mean.dim` of any kind of operator object as `aten.mean`."""
    name = target.name() if callable(getattr(target, "name", None)) else str(target)
    return name.split(".")[0].replace("::", ".")


def _describe(own: Sequence[tuple[str, str]], total: int) -> str:
    first = dict(reversed(own))
    shown = [f"{name} ({first[name]})" for name in dict.fromkeys(name for name, _ in own)]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return (
        f"{len(own)} of {count(total, 'operator')} not in XNNPACK but in ExecuTorch's own kernels: "
        f"{', '.join(shown[:SHOWN])}{more}"
    )


def _refuse_missing(done: Any, own: Sequence[tuple[str, str]], task: Task) -> None:
    """Refuse an operator for which the runtime has no kernel: it would fail on loading, on the device."""
    from executorch.extension.pybindings import _C

    known = set(_C._get_operator_names())
    for operator in done.executorch_program.execution_plan[0].operators:
        full = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
        if full not in known:
            name = operator.name.replace("::", ".")
            raise _no_kernel(name, dict(reversed(own)).get(name), task)


def _try(artifact: Artifact, own: Sequence[tuple[str, str]], task: Task) -> None:
    """Run it once: some kernels refuse what they are given only then."""
    try:
        artifact.open()(task.named(task.example))
    except BadInput as error:
        met = _KERNEL.search(error.what)
        if not met:
            raise
        name = f"{met[1]}.{met[2]}"
        raise _no_kernel(name, dict(reversed(own)).get(name), task, "for this call") from error


def _refused(error: Exception, program: ExportedProgram, task: Task) -> BadInput:
    """What the lowering did not take, and where it stands in the user's model."""
    text = str(error)
    if met := _NOT_CORE.search(text) or _BAD_TYPES.search(text):
        name = f"{met[1]}.{met[2]}"
        return _no_kernel(name, place_of_operator(program, name), task)
    return BadInput(
        f"ExecuTorch cannot take it: {first_line(error)}",
        where=f"the model of {task.name}",
        todo="take another runtime",
    )


def _no_kernel(name: str, where: str | None, task: Task, call: str = "") -> BadInput:
    return BadInput(
        f"ExecuTorch has no kernel of the operator {name}{' ' + call if call else ''}",
        where=where or f"the model of {task.name}",
        todo="replace it in the network, or take another runtime (onnxruntime, openvino)",
    )
