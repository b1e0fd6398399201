"""From what the user names on the command line to a task that the rest of the program can trust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import BadInput
from edgekit.task.data import (
    Calibration,
    Item,
    from_function,
    open_calibration,
    open_training,
    peek,
    read_calibration,
)
from edgekit.task.digest import digest_task
from edgekit.task.inputs import settle_call
from edgekit.task.leaves import as_named
from edgekit.task.record import Arrays, Task
from edgekit.task.shape_option import parse_shapes
from edgekit.task.shapes import Said
from edgekit.task.signature import read_signature
from edgekit.task.source import Source, open_source
from edgekit.task.taskfile import Parts
from edgekit.task.trial import name_outputs, try_model
from edgekit.task.usercode import import_function, where_defined

if TYPE_CHECKING:
    import onnx
    import torch


@dataclass(frozen=True, kw_only=True)
class Given:
    """The options that stand for a task file, or override one.

    Attributes:
        calibration: `FILE.npz`, a folder of `.npz` or `.npy` files, or `file.py:function`.
        training: `file.py:function` that returns (input, label) batches.
        evaluate: `file.py:function` that scores a predict function.
        model_factory: `file.py:function` that makes the network when a file holds its weights only.
        input_shape: see `edgekit.task.shape_option`.
        trust_pickle: open a pickle that holds code.
    """

    calibration: str | None = None
    training: str | None = None
    evaluate: str | None = None
    model_factory: str | None = None
    input_shape: tuple[str, ...] = ()
    trust_pickle: bool = False


def load_task(source: str, given: Given) -> Task:
    """Load a model and its data, and run the model once on an example of the deployed call.

    Args:
        source: a task file, `path.py:factory`, `package.module:factory`, a model file, or a zoo's network.
        given: options; each overrides what the task file says.

    Raises:
        BadInput: anything that cannot be used as it is, in one line.
        OutsideFailure: a package that the source needs is not installed.
    """
    parse_shapes(given.input_shape)  # refused before the model is loaded, not after
    brought = open_source(source, model_factory=given.model_factory, trust_pickle=given.trust_pickle)
    return settle_task(brought, given)


def settle_task(brought: Source, given: Given) -> Task:
    """The task of a model that is loaded, run once on an example of the deployed call.

    Args:
        brought: the model and what came with it.
        given: options; each overrides what came with it.

    Raises:
        BadInput: as for `load_task`.
    """
    options = parse_shapes(given.input_shape)
    loaded, parts = brought.loaded, brought.parts
    training = _choose(given.training, parts.training_data, parts.folder)
    evaluate = _choose(given.evaluate, parts.evaluate, parts.folder)
    first, calibration = _open_calibration(given.calibration, parts)
    said = replace(_read_said(brought), options=options, first=first, floats=_float_type(loaded.model))
    call = settle_call(loaded, read_signature(loaded), said)
    calls: tuple[Arrays, ...] | None = None
    notes: tuple[str, ...] = ()
    if calibration is not None:
        calls, notes = read_calibration(calibration, call.specs, call.example)
        call = replace(call, example=calls[0], made_up=False) if call.made_up else call
    outputs = try_model(loaded.model, call, brought.where)
    functions = {"training": training, "evaluate": evaluate}
    return Task(
        name=brought.name,
        model=loaded.model,
        inputs=call.specs,
        output_names=_output_names(brought, name_outputs(outputs, call)),
        example=call.example,
        calibration=calls,
        training=open_training(*training) if training else None,
        evaluate=evaluate[0] if evaluate else None,
        sources_digest=digest_task(
            brought, call, calls, {role: chosen[0] for role, chosen in functions.items() if chosen}
        ),
        notes=(*loaded.notes, *parts.notes, *notes),
    )


Function = tuple[Callable[..., Any], Path]  # a guarded function and the folder that it imports from


def _choose(option: str | None, own: Callable[..., Any] | None, folder: Path) -> Function | None:
    """The function that an option names, else the task file's own."""
    if option is not None:
        return import_function(option)
    return (own, folder) if own is not None else None


def _open_calibration(option: str | None, parts: Parts) -> tuple[Item | None, Calibration | None]:
    """The calibration data that the option names, else the task file's own, and the first item of it."""
    if option is not None:
        return peek(open_calibration(option))
    if parts.calibration_data is not None:
        return peek(from_function(parts.calibration_data, parts.folder))
    return None, None


def _read_said(brought: Source) -> Said:
    """What the task file says about the call."""
    parts = brought.parts
    said = Said(where=brought.where, axes=parts.dynamic_axes)
    if parts.example_inputs is None:
        return said
    where = f"{where_defined(parts.example_inputs)} in example_inputs()"
    return replace(said, example=as_named(parts.example_inputs(), where), example_where=where)


def _float_type(model: torch.nn.Module | onnx.ModelProto) -> str:
    """The type of the module's weights, where numpy has it."""
    import torch

    parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
    dtypes = (parameter.dtype for parameter in parameters)
    known = {torch.float64: "float64", torch.float16: "float16"}
    return next((known.get(dtype, "float32") for dtype in dtypes if dtype.is_floating_point), "float32")


def _output_names(brought: Source, found: tuple[str, ...]) -> tuple[str, ...]:
    """The names that the task file asks for, else those that the model gives."""
    asked = brought.parts.output_names
    if not asked:
        return found
    if len(asked) != len(found):
        raise BadInput(
            f"output_names has {len(asked)} names, the model gives {len(found)} outputs", where=brought.where
        )
    return asked
