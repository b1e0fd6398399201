"""Arrays out of what users hand over: tensors, arrays, tuples, dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.errors import BadInput, count
from edgekit.task.record import Arrays


def to_array(leaf: Any, name: str, where: str) -> np.ndarray:
    """One tensor or array as a contiguous numpy array.

    Raises:
        BadInput: it is neither, or of a kind that numpy cannot hold.
    """
    import torch

    if isinstance(leaf, torch.Tensor):
        leaf = _tensor_to_array(leaf, name, where)
    if not isinstance(leaf, np.ndarray | np.generic):
        raise BadInput(
            f"{name} is a {type(leaf).__name__}", where=where, todo="give torch tensors or numpy arrays"
        )
    array = np.asarray(leaf, order="C")
    if array.dtype.kind not in "fiub":
        raise BadInput(f"{name} holds {array.dtype.name} values, only numbers are taken", where=where)
    return array


def _tensor_to_array(tensor: Any, name: str, where: str) -> np.ndarray:
    try:
        return np.asarray(tensor.detach().cpu().resolve_conj().resolve_neg().numpy())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise BadInput(
            f"{name} is a {str(tensor.layout).removeprefix('torch.')} tensor of {tensor.dtype}, "
            "which numpy cannot hold",
            where=where,
            todo="give a dense float32 tensor",
        ) from error


def as_named(given: Any, where: str) -> dict[str, Any] | tuple[Any, ...]:
    """What a user's function gave for one call: leaves by name, or leaves in order."""
    if isinstance(given, Mapping):
        return {str(name): leaf for name, leaf in given.items()}
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        if not given:
            raise BadInput("no inputs are given", where=where, todo="give one tensor for each input")
        return tuple(given)
    return (given,)


def in_order(given: Any, names: Sequence[str], where: str) -> Arrays:
    """The arrays of one call in the order of `names`.

    Raises:
        BadInput: a name is missing or unknown, the count is wrong, or a leaf is not an array.
    """
    leaves = as_named(given, where)
    if isinstance(leaves, dict):
        missing, unknown = [n for n in names if n not in leaves], [n for n in leaves if n not in names]
        if missing or unknown:
            raise BadInput(describe_names(missing, unknown), where=where, todo=inputs_are(names))
        leaves = tuple(leaves[name] for name in names)
    if len(leaves) != len(names):
        hint = "give the inputs only, without labels" if len(leaves) > len(names) else inputs_are(names)
        raise BadInput(
            f"{count(len(leaves), 'array')} for {count(len(names), 'input')}", where=where, todo=hint
        )
    return tuple(to_array(leaf, f"`{name}`", where) for name, leaf in zip(names, leaves, strict=True))


def describe_names(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """In words, which input names are missing and which are not the model's."""
    parts = [f"no `{name}`" for name in missing] + [f"unknown input `{name}`" for name in unknown]
    return ", ".join(parts)


def inputs_are(names: Sequence[str]) -> str:
    """Advice that lists the model's inputs."""
    return f"the model takes {', '.join(names)}"


def cast(array: np.ndarray, dtype: str, name: str, where: str) -> np.ndarray:
    """The array in the input's type, when no value is changed beyond float rounding.

    Floats become floats of another width, integers become integers or floats that hold them exactly.

    Raises:
        BadInput: the type does not fit, or a value does not.
    """
    wanted = np.dtype(dtype)
    if array.dtype == wanted:
        return array
    is_float, to_float = array.dtype.kind == "f", wanted.kind == "f"
    if is_float and not to_float:
        raise BadInput(f"{name} holds {array.dtype.name}, expected {dtype}", where=where)
    with np.errstate(over="ignore"):
        result = array.astype(wanted)
    exact = bool((result == array).all())
    overflow = is_float and bool((np.isfinite(array) & ~np.isfinite(result)).any())
    if overflow or not (is_float or exact):
        raise BadInput(f"{name} holds {array.dtype.name} values that {dtype} cannot hold", where=where)
    return result


def check_finite(array: np.ndarray, name: str, where: str) -> None:
    """Refuse NaN and infinite values.

    Raises:
        BadInput: one is in the array.
    """
    if array.dtype.kind != "f" or bool(np.isfinite(array).all()):
        return
    what = "NaN" if bool(np.isnan(array).any()) else "infinite values"
    raise BadInput(f"{name} holds {what}", where=where)
