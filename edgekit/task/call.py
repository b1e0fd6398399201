"""Call a torch module with arrays, and flatten what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import BadInput, first_line
from edgekit.task.record import Arrays
from edgekit.task.usercode import find_frame

if TYPE_CHECKING:
    import torch


def call_module(model: torch.nn.Module, arrays: Arrays) -> Arrays:
    """Run a module without gradients; its outputs flattened, in order.

    Raises:
        BadInput: an output is not a tensor.
    """
    import torch

    tensors = [torch.from_numpy(np.array(array)) for array in arrays]
    with torch.no_grad():
        outputs = model(*tensors)
    return tuple(_to_numpy(tensor) for tensor in flatten_outputs(outputs))


def flatten_outputs(outputs: Any, place: str = "output") -> tuple[torch.Tensor, ...]:
    """The tensors in a nest of tuples, lists and dicts, depth first.

    Raises:
        BadInput: something else is in it, or nothing is.
    """
    import torch

    if isinstance(outputs, torch.Tensor):
        return (outputs,)
    items: list[tuple[str, Any]]
    if isinstance(outputs, Mapping):
        items = [(f"{place}[{key!r}]", value) for key, value in outputs.items()]
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str | bytes):
        items = [(f"{place}[{index}]", value) for index, value in enumerate(outputs)]
    else:
        raise BadInput(
            f"the model's {place} is a {type(outputs).__name__}",
            todo="return a tensor, or a tuple, list or dict of tensors",
        )
    if not items:
        raise BadInput(f"the model's {place} is empty", todo="return at least one tensor")
    return tuple(tensor for where, item in items for tensor in flatten_outputs(item, where))


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    import torch

    plain = tensor.detach().cpu()
    return np.asarray((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())


def try_module(model: torch.nn.Module, arrays: Arrays, shown: str) -> Arrays:
    """Run the example once and say in one line why it fails.

    Args:
        model: in evaluation mode.
        arrays: the example.
        shown: the example in words, `x 1x3x32x32 float32`.

    Raises:
        BadInput: the model does not take these inputs, or an output is not a tensor.
    """
    try:
        return call_module(model, arrays)
    except BadInput:
        raise
    except Exception as error:
        frame = find_frame(error)
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise BadInput(
            f"the model fails on the example inputs ({shown}): {reason}",
            where=frame,
            todo="give the shapes and types it was made for, with `--input-shape` or example_inputs()",
        ) from error
