"""The deployed call: its inputs, which of their axes are dynamic, and an example of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.errors import BadInput
from edgekit.near import nearest
from edgekit.task.leaves import cast, check_finite, to_array
from edgekit.task.record import Argument, Arrays, InputSpec, Loaded, show_shape
from edgekit.task.shapes import Said, bind_options, check_shape, find_shapes
from edgekit.task.signature import Signature, bind

Axes = Mapping[str, Mapping[int, str]]
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Call:
    """The deployed call.

    Attributes:
        made_up: the shapes are right, but the values are random.
    """

    specs: tuple[InputSpec, ...]
    example: Arrays
    made_up: bool


def settle_call(loaded: Loaded, signature: Signature, said: Said) -> Call:
    """The deployed call, by the first that says it.

    `--input-shape`, `example_inputs()`, the file's own example, the shapes that the file declares, the first
    calibration sample, the shape that a zoo network is made for.

    Raises:
        BadInput: nobody says the shapes, or what is said does not fit the model.
    """
    made_up = bool(said.options) or (said.example is None and loaded.example is None)
    if made_up:
        wanted = find_shapes(loaded, signature, said)
        example = {
            argument: _invent(*want, seed) for seed, (argument, want) in enumerate(wanted.items(), start=SEED)
        }
    elif said.example is not None:
        example = _read_example(bind(signature, said.example, said.example_where), said.example_where)
    else:
        example = _read_example(bind(signature, loaded.example or (), said.where), said.where)
    axes = _name_axes(example, _asked_axes(signature, said), said.where)
    specs = tuple(_spec(argument.name, array, axes[argument.name]) for argument, array in example.items())
    return Call(specs=specs, example=tuple(example.values()), made_up=made_up)


def _invent(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Noise for floats, another for each input, for a network may compare them. Ones for the rest.

    One is a token that every vocabulary has, and a mask of ones hides nothing.
    """
    if np.dtype(dtype).kind == "f":
        return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)
    return np.ones(shape, dtype)


def _read_example(leaves: Mapping[Argument, Any], where: str) -> dict[Argument, np.ndarray]:
    """An example's arrays, checked against what the model file declares."""
    arrays = {}
    for argument, leaf in leaves.items():
        name = f"`{argument.name}`"
        array = to_array(leaf, name, where)
        check_shape(argument, array.shape, where)
        check_finite(array, name, where)
        if not array.size:
            raise BadInput(f"{name} holds no values", where=where)
        arrays[argument] = array if argument.dtype is None else cast(array, argument.dtype, name, where)
    return arrays


def _asked_axes(signature: Signature, said: Said) -> dict[str, dict[int, str]]:
    """The dynamic axes that the user asks for; an option's words replace the task file's."""
    axes = {name: dict(words) for name, words in said.axes.items()}
    options = bind_options(signature, said)
    axes.update({argument.name: option.words for argument, option in options.items() if option.words})
    return axes


def _name_axes(example: Mapping[Argument, np.ndarray], asked: Axes, where: str) -> dict[str, dict[int, str]]:
    """The dynamic axes of each input: what the file keeps dynamic, or what is asked of a torch module."""
    ranks = {argument.name: array.ndim for argument, array in example.items()}
    for name, words in asked.items():
        if name not in ranks:
            todo = nearest(name, ranks) or f"the inputs are {', '.join(ranks)}"
            raise BadInput(f"a dynamic axis is asked of `{name}`, which is no input", where=where, todo=todo)
        if outside := [axis for axis in words if not 0 <= axis < ranks[name]]:
            raise BadInput(f"`{name}` has no axis {outside[0]}, it has {ranks[name]} axes", where=where)
    return {
        argument.name: _own_axes(argument) | _allowed(argument, asked.get(argument.name, {}), where)
        for argument in example
    }


def _own_axes(argument: Argument) -> dict[int, str]:
    """The axes that the model file keeps dynamic; those without a name get one."""
    sizes = enumerate(argument.shape or ())
    return {
        axis: size or ("batch" if axis == 0 else f"{argument.name}_{axis}")
        for axis, size in sizes
        if not isinstance(size, int)
    }


def _allowed(argument: Argument, words: Mapping[int, str], where: str) -> dict[int, str]:
    fixed = [axis for axis in words if argument.shape is not None and isinstance(argument.shape[axis], int)]
    if fixed:
        raise BadInput(
            f"axis {fixed[0]} of `{argument.name}` is asked dynamic, but the model file fixes it",
            where=where,
            todo="export the file again with that axis dynamic",
        )
    return dict(words)


def _spec(name: str, array: np.ndarray, axes: Mapping[int, str]) -> InputSpec:
    shape = tuple(axes.get(axis, size) for axis, size in enumerate(array.shape))
    return InputSpec(name=name, shape=shape, dtype=array.dtype.name)


def show_specs(specs: Iterable[InputSpec], example: Arrays) -> str:
    """The example in words: `x 1x3x32x32 float32, sr scalar int64`."""
    return ", ".join(
        f"{spec.name} {show_shape(array.shape)} {spec.dtype}"
        for spec, array in zip(specs, example, strict=True)
    )
