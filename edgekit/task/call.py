"""Call a torch module with arrays, and name what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import BadInput
from edgekit.task.record import Arrays

if TYPE_CHECKING:
    import torch


def call_module(model: torch.nn.Module, arrays: Arrays) -> dict[str, np.ndarray]:
    """Run a module without gradients; its flattened outputs in order, by name.

    A dict's outputs have its keys for names, a tuple's are `output_0`, `output_1`, a single one is `output`.

    Raises:
        BadInput: an output is not a tensor.
    """
    import torch

    tensors = [torch.from_numpy(np.array(array)) for array in arrays]
    with torch.no_grad():
        outputs = model(*tensors)
    return {
        "_".join(place) if place and place[0].isidentifier() else "_".join(("output", *place)): _to_numpy(
            tensor
        )
        for place, tensor in _flatten(outputs)
    }


def _flatten(outputs: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """The tensors in a nest of tuples, lists and dicts, depth first, with the keys that lead there."""
    import torch

    if isinstance(outputs, torch.Tensor):
        yield place, outputs
        return
    items: list[tuple[Any, Any]]
    if isinstance(outputs, Mapping):
        items = list(outputs.items())
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str | bytes):
        items = list(enumerate(outputs))
    else:
        raise BadInput(
            f"the model's {_show(place)} is a {type(outputs).__name__}",
            todo="return a tensor, or a tuple, list or dict of tensors",
        )
    if not items:
        raise BadInput(f"the model's {_show(place)} is empty", todo="return at least one tensor")
    for key, item in items:
        yield from _flatten(item, (*place, str(key)))


def _show(place: tuple[str, ...]) -> str:
    return "output" + "".join(f"[{key}]" for key in place)


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    import torch

    plain = tensor.detach().cpu()
    return np.asarray((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())
