"""What a model itself says about its inputs, and how a call's leaves are put in its order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekit.errors import BadInput, count
from edgekit.task.leaves import describe_names, inputs_are
from edgekit.task.record import Argument, Loaded


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The inputs of a model, in order.

    Attributes:
        fixed: the names are the file's own (ONNX); a torch module's inputs may be named as one likes.
        declared: the file says the inputs' shapes and types (ONNX, `.pt2`).
        variadic: the module takes any number of inputs (`*args`), so `arguments` is empty.
    """

    arguments: tuple[Argument, ...]
    fixed: bool = False
    declared: bool = False
    variadic: bool = False


def read_signature(loaded: Loaded) -> Signature:
    """The inputs that the model's file declares, else those of the module's `forward`."""
    import torch

    model = loaded.model
    if loaded.arguments is not None:
        fixed = not isinstance(model, torch.nn.Module)
        return Signature(arguments=loaded.arguments, fixed=fixed, declared=True)
    if isinstance(model, torch.jit.ScriptModule):
        return Signature(arguments=_read_schema(model.forward))
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return Signature(arguments=(), variadic=True)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return Signature(
        arguments=tuple(
            Argument(name=item.name, required=item.default is inspect.Parameter.empty)
            for item in parameters
            if item.kind in positional
        )
    )


def _read_schema(forward: Any) -> tuple[Argument, ...]:
    arguments = forward.schema.arguments[1:]  # the first is `self`
    return tuple(Argument(name=item.name, required=not item.has_default_value()) for item in arguments)


def bind(signature: Signature, leaves: Mapping[str, Any] | Sequence[Any], where: str) -> dict[Argument, Any]:
    """Each leaf with the argument that it is for, in the order of the call.

    Leaves by name go to the arguments of those names. A torch module's inputs may also be given new names:
    then the leaves' own order is that of the call.

    Raises:
        BadInput: a name or a number of leaves that the model does not take.
    """
    if isinstance(leaves, Mapping):
        known = [argument.name for argument in signature.arguments]
        if signature.fixed or (known and set(leaves) <= set(known)):
            return _bind_names(signature.arguments, leaves, where)
        arguments = _take(signature, len(leaves), where)
        renamed = [replace(item, name=name) for item, name in zip(arguments, leaves, strict=True)]
        return dict(zip(renamed, leaves.values(), strict=True))
    return dict(zip(_take(signature, len(leaves), where), leaves, strict=True))


def _bind_names(arguments: Sequence[Argument], leaves: Mapping[str, Any], where: str) -> dict[Argument, Any]:
    names = [item.name for item in arguments]
    # The call is by position: everything before the last one that is given must be given too.
    last = max((index for index, name in enumerate(names) if name in leaves), default=-1)
    needed = [item.name for index, item in enumerate(arguments) if item.required or index <= last]
    missing = [name for name in needed if name not in leaves]
    unknown = [name for name in leaves if name not in names]
    if missing or unknown:
        raise BadInput(describe_names(missing, unknown), where=where, todo=inputs_are(names))
    return {item: leaves[item.name] for item in arguments if item.name in leaves}


def _take(signature: Signature, number: int, where: str) -> tuple[Argument, ...]:
    """The first `number` arguments, when a call may give just those."""
    if signature.variadic:
        names = ["input"] if number == 1 else [f"input_{index}" for index in range(number)]
        return tuple(Argument(name=name) for name in names)
    least = sum(argument.required for argument in signature.arguments)
    if least <= number <= len(signature.arguments):
        return signature.arguments[:number]
    names = [argument.name for argument in signature.arguments]
    raise BadInput(
        f"{count(number, 'array')} for {count(max(least, 1) if number < least else len(names), 'input')}",
        where=where,
        todo="give the inputs only, without labels" if number > len(names) else inputs_are(names),
    )
