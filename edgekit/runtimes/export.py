"""From a torch module to an ONNX graph that does the same, at every size that was asked dynamic."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import onnx

from edgekit.errors import BadInput, first_line
from edgekit.graph.prepare import fixed_axes
from edgekit.runtimes.program import example_tensors, forget_recurrent_kernels
from edgekit.runtimes.proof import disagreement, refuse_random

if TYPE_CHECKING:
    import torch

    from edgekit.task.record import InputSpec, Task

TORCHSCRIPT_OPSET = 17  # the newest that the TorchScript exporter writes
DYNAMO_OPSET = 20  # what the quantizers were tried with; runtimes take newer files than the quantizers do

# What dynamo says of `if tensor > 0`. A trace keeps the side that the example takes, without an error.
_BRANCH = re.compile(r"data-dependent expression Eq\(u\d+, 1\)")

Exporter = Callable[..., onnx.ModelProto]


def export(network: torch.nn.Module, task: Task, opset: int) -> tuple[onnx.ModelProto, list[str]]:
    """The ONNX graph of a torch module by the first exporter proven right, and what went wrong before.

    Args:
        network: left as it was.
        task: gives the example call, the names and the dynamic axes.
        opset: the newest operator set that the device's runtime takes.

    Raises:
        BadInput: the network gives different outputs for equal inputs, or no exporter can treat it.
    """
    import torch

    refuse_random(network, task)
    exporters: list[tuple[str, Exporter]] = [("TorchScript", _export_torchscript)]
    if not isinstance(network, torch.jit.ScriptModule):
        exporters.insert(0, ("dynamo", _export_dynamo))
    failures = []
    while exporters:
        name, exporter = exporters.pop(0)
        try:
            model = exporter(network, task, opset)
        except Exception as error:  # noqa: BLE001 - the next exporter may manage; all reasons are reported
            failures.append(f"{name} exporter: {_reason(error)}")
            if _BRANCH.search(failures[0]):
                exporters = exporters and [("TorchScript", _export_scripted)]
            continue
        if wrong := _fixed(model, task) or disagreement(network, model, task):
            failures.append(f"{name} exporter: {wrong}")
            continue
        return model, ([f"exported by the {name} exporter ({failures[0]})"] if failures else [])
    raise BadInput(
        "cannot be exported to ONNX: " + "; ".join(failures),
        where=f"the model of {task.name}",
        todo="bring the part that fails into exportable form, or give an .onnx file",
    )


def _fixed(model: onnx.ModelProto, task: Task) -> str | None:
    fixed = fixed_axes(model, _asked(task.inputs))
    return f"{fixed[0]} although it was asked dynamic" if fixed else None


def _export_dynamo(network: torch.nn.Module, task: Task, opset: int) -> onnx.ModelProto:
    import torch

    names = {name for spec in task.inputs for name in spec.shape if isinstance(name, str)}
    dims = {name: torch.export.Dim(name, min=1) for name in sorted(names)}
    shapes = tuple(
        {axis: dims[name] for axis, name in enumerate(spec.shape) if isinstance(name, str)}
        for spec in task.inputs
    )
    forget_recurrent_kernels()
    takes_any = inspect.Parameter.VAR_POSITIONAL in {
        parameter.kind for parameter in inspect.signature(network.forward).parameters.values()
    }
    program = torch.onnx.export(
        network,
        example_tensors(task),
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


def _export_torchscript(network: torch.nn.Module, task: Task, opset: int) -> onnx.ModelProto:
    import torch

    buffer: Any = io.BytesIO()  # taken by the exporter, though its annotation says otherwise
    torch.onnx.export(
        network,
        example_tensors(task),
        buffer,
        dynamo=False,
        opset_version=min(opset, TORCHSCRIPT_OPSET),
        dynamic_axes=_asked(task.inputs),
        **_names(task),
    )
    model = onnx.load_model_from_string(buffer.getvalue())
    if _asked(task.inputs):
        # The exporter declares the sizes of the example, for outputs that follow a dynamic axis too.
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        model = onnx.shape_inference.infer_shapes(model)
    return model


def _export_scripted(network: torch.nn.Module, task: Task, opset: int) -> onnx.ModelProto:
    """By the compiler of TorchScript, which keeps both sides of a branch."""
    import torch

    try:
        scripted = torch.jit.script(network)
    except Exception:  # noqa: BLE001 - of many kinds, a page of text each
        raise BadInput(
            "a trace keeps one side only of a branch on a tensor's values, and torch.jit.script fails"
        ) from None
    return _export_torchscript(scripted, task, opset)


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


def _reason(error: BaseException) -> str:
    """The innermost cause that says something; the exporters wrap it in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
