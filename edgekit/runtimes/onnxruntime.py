"""ONNX Runtime: from a torch module or an ONNX file to the float graph that the steps start from."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgekit.errors import BadInput, first_line
from edgekit.graph.names import name_nodes
from edgekit.graph.prepare import fixed_axes, own_outputs, prepare, random_node
from edgekit.hushed import hushed
from edgekit.verify import unproven_axes

if TYPE_CHECKING:
    import torch

    from edgekit.task.record import InputSpec, Task

TORCHSCRIPT_OPSET = 17  # the newest that the TorchScript exporter writes
DYNAMO_OPSET = 20  # what the quantizers were tried with; runtimes take newer files than the quantizers do


def convert(
    network: torch.nn.Module | onnx.ModelProto, task: Task, *, opset: int, ir_version: int
) -> tuple[onnx.ModelProto, list[str]]:
    """The float ONNX graph of `network`, simplified, and what was done on the way.

    Args:
        network: the task's model or a compressed version of it; left as it was.
        task: gives the example call, the names and the dynamic axes.
        opset: the newest operator set that the device's runtime takes.
        ir_version: the newest IR version that it takes.

    Raises:
        BadInput: no exporter can convert it, an axis that was asked dynamic comes out fixed, or its outputs
            are random.
    """
    if isinstance(network, onnx.ModelProto):
        model, notes = prepare(network, opset=opset, ir_version=ir_version)
    else:
        exported, said = _export(network, task, opset)
        model, notes = prepare(exported, opset=opset, ir_version=ir_version)
        name_nodes(model.graph)
        notes = said + notes
    if node := random_node(model.graph):
        raise BadInput(
            f"node `{node}` draws random numbers: equal inputs give different outputs, so nothing can be checked",
            where=f"the model of {task.name}",
            todo="make the random numbers an input, or take them out of the network",
        )
    model = simplify(model, notes)
    own_outputs(model.graph)
    return model, notes


def simplify(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    """The graph with constants folded and dead nodes gone; `model` itself where that fails."""
    import onnxslim

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with hushed():
            slim: onnx.ModelProto = onnxslim.slim(copy)
        onnx.checker.check_model(slim)
    except Exception as error:  # noqa: BLE001 - the simplifier is a courtesy; the graph is right without it
        notes.append(f"not simplified: {first_line(error)}")
        return model
    if _interface(slim) != _interface(model):
        notes.append("not simplified: the simplifier changed the inputs or outputs")
        return model
    del slim.graph.value_info[:]
    slim.ir_version = model.ir_version
    return slim


def _interface(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in (*model.graph.input, *model.graph.output)]


def _export(network: torch.nn.Module, task: Task, opset: int) -> tuple[onnx.ModelProto, list[str]]:
    """Try the exporters in turn until one gives a graph whose dynamic axes are dynamic."""
    import torch

    exporters: list[tuple[str, Callable[..., onnx.ModelProto]]] = [("TorchScript", _export_torchscript)]
    if not isinstance(network, torch.jit.ScriptModule):
        exporters.insert(0, ("dynamo", _export_dynamo))
    failures = []
    for name, export in exporters:
        try:
            with hushed():
                model = export(network, task, opset)
        except Exception as error:  # noqa: BLE001 - the next exporter may manage; all reasons are reported
            failures.append(f"{name} exporter: {_reason(error)}")
            continue
        wrong = fixed_axes(model, _asked(task.inputs)) or unproven_axes(network, model, task)
        if wrong:
            failures.append(f"{name} exporter: {wrong[0]}")
            continue
        return model, ([f"exported by the {name} exporter ({failures[0]})"] if failures else [])
    raise BadInput(
        "cannot be exported to ONNX: " + "; ".join(failures),
        where=f"the model of {task.name}",
        todo="bring the part that fails into exportable form, or give an .onnx file",
    )


def _export_dynamo(network: torch.nn.Module, task: Task, opset: int) -> onnx.ModelProto:
    import torch

    names = {name for spec in task.inputs for name in spec.shape if isinstance(name, str)}
    dims = {name: torch.export.Dim(name, min=1) for name in sorted(names)}
    shapes = tuple(
        {axis: dims[name] for axis, name in enumerate(spec.shape) if isinstance(name, str)}
        for spec in task.inputs
    )
    _forget_recurrent_kernels()
    takes_any = inspect.Parameter.VAR_POSITIONAL in {
        parameter.kind for parameter in inspect.signature(network.forward).parameters.values()
    }
    program = torch.onnx.export(
        network,
        _example(task),
        dynamo=True,
        external_data=False,
        verbose=False,
        opset_version=min(opset, DYNAMO_OPSET),
        dynamic_shapes=((shapes,) if takes_any else shapes) if names else None,
        **_names(task),
    )
    if program is None:
        raise BadInput("the exporter returned nothing")
    return program.model_proto


def _forget_recurrent_kernels() -> None:
    """Let torch look up anew how recurrent layers are exported.

    The exporter replaces their decomposition while it runs, but torch 2.13 remembers the one it met first:
    from the second export in a process on, the time axis would silently be unrolled and fixed.
    """
    import torch

    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        getattr(torch.ops.aten, name).input._dispatch_cache.clear()


def _export_torchscript(network: torch.nn.Module, task: Task, opset: int) -> onnx.ModelProto:
    import torch

    buffer: Any = io.BytesIO()  # taken by the exporter, though its annotation says otherwise
    outputs = {name: {0: "batch"} for name in task.output_names if _asked(task.inputs)}
    torch.onnx.export(
        network,
        _example(task),
        buffer,
        dynamo=False,
        opset_version=min(opset, TORCHSCRIPT_OPSET),
        dynamic_axes={**_asked(task.inputs), **outputs},
        **_names(task),
    )
    return onnx.load_model_from_string(buffer.getvalue())


def _names(task: Task) -> dict[str, Any]:
    names = {"input_names": [spec.name for spec in task.inputs]}
    return {**names, "output_names": list(task.output_names)} if task.output_names else names


def _asked(inputs: Sequence[InputSpec]) -> dict[str, dict[int, str]]:
    """Axes asked dynamic, by input: {"image": {0: "batch"}}."""
    axes = {
        spec.name: {axis: name for axis, name in enumerate(spec.shape) if isinstance(name, str)}
        for spec in inputs
    }
    return {name: dims for name, dims in axes.items() if dims}


def _example(task: Task) -> tuple[torch.Tensor, ...]:
    """The example call; dynamic axes of size 1 are doubled, because the exporter would fix a size of 1."""
    import torch

    def widen(array: np.ndarray, spec: InputSpec) -> np.ndarray:
        for axis, name in enumerate(spec.shape):
            if isinstance(name, str) and array.shape[axis] == 1:
                array = np.repeat(array, 2, axis)
        return array

    return tuple(
        torch.from_numpy(np.ascontiguousarray(widen(array, spec)).copy())
        for array, spec in zip(task.example, task.inputs, strict=True)
    )


def _reason(error: BaseException) -> str:
    """The innermost cause that says something; the exporters wrap it in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
