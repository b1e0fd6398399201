"""Run the model once on the example, and refuse in one line what no later stage could make good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgekit.errors import BadInput, EdgekitError, first_line
from edgekit.graph.run import AT_INPUTS, open_session, run
from edgekit.task.call import call_module
from edgekit.task.inputs import Call, show_specs
from edgekit.task.usercode import find_frame

if TYPE_CHECKING:
    import torch


def try_model(model: torch.nn.Module | onnx.ModelProto, call: Call, where: str) -> dict[str, np.ndarray]:
    """The outputs for the example, by name.

    Raises:
        BadInput: the model fails, an output is not a tensor, or one holds a value that is not a number.
    """
    shown = show_specs(call.specs, call.example)
    try:
        outputs = _run(model, call)
    except EdgekitError as error:
        made_up = error.where == AT_INPUTS and _advise(call)
        raise BadInput(error.what, where=where, todo=error.todo or made_up or None) from error
    except Exception as error:
        raise BadInput(
            f"the model fails on the example inputs ({shown}): {type(error).__name__}: {first_line(error)}",
            where=find_frame(error) or where,
            todo="give the shapes and types it was made for, with `--input-shape`, calibration data or "
            "example_inputs()",
        ) from error
    for name, array in outputs.items():
        _check_output(name, array, call, where)
    return outputs


def _run(model: torch.nn.Module | onnx.ModelProto, call: Call) -> dict[str, np.ndarray]:
    if not isinstance(model, onnx.ModelProto):
        return call_module(model, call.example)
    inputs = {spec.name: array for spec, array in zip(call.specs, call.example, strict=True)}
    names = [value.name for value in model.graph.output]
    return dict(zip(names, run(open_session(model), inputs), strict=True))


def _check_output(name: str, array: np.ndarray, call: Call, where: str) -> None:
    if array.dtype.kind != "f" or bool(np.isfinite(array).all()):
        return
    what = "NaN" if bool(np.isnan(array).any()) else "infinite values"
    raise BadInput(
        f"the model's `{name}` holds {what} on the example inputs", where=where, todo=_advise(call)
    )


def _advise(call: Call) -> str | None:
    return "its input was made up: give real calibration data, or example_inputs()" if call.made_up else None


def check_weights(model: torch.nn.Module, where: str) -> None:
    """Refuse a module with weights that are not numbers. Buffers may be infinite: masks are.

    Raises:
        BadInput: names the first one.
    """
    from torch.nn.parameter import is_lazy

    for name, tensor, is_buffer in _named_tensors(model):
        if is_lazy(tensor):
            continue  # it gets its shape and its first values when the example is run
        if tensor.is_meta:
            raise BadInput(f"`{name}` holds no values (it is on the meta device)", where=where)
        if not tensor.is_floating_point():
            continue
        nans, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        if nans or (infinite and not is_buffer):
            what = f"NaN ({nans}" if nans else f"infinite values ({infinite}"
            raise BadInput(f"the weight `{name}` holds {what} of {tensor.numel()} values)", where=where)


def _named_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    yield from ((name, tensor, False) for name, tensor in model.named_parameters())
    yield from ((name, tensor, True) for name, tensor in model.named_buffers())


def name_outputs(outputs: Mapping[str, np.ndarray], call: Call) -> tuple[str, ...]:
    """The outputs' names, apart from those of the inputs: in ONNX one name is one value."""
    taken = {spec.name for spec in call.specs}
    return tuple(f"{name}_out" if name in taken else name for name in outputs)
