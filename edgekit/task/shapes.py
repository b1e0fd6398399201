"""Shapes and types of a deployed call that nobody gave an example of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.errors import BadInput
from edgekit.near import nearest
from edgekit.task.data import Item
from edgekit.task.leaves import inputs_are, to_array
from edgekit.task.record import Argument, Loaded, show_shape
from edgekit.task.shape_option import ShapeOption
from edgekit.task.signature import Signature, bind

Wanted = tuple[tuple[int, ...], str]  # sizes along each axis, and the type's numpy name


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the user says about the deployed call besides the model.

    Attributes:
        where: the task, for the line of a refusal.
        options: `--input-shape`.
        example: what `example_inputs()` gave, None without it.
        example_where: the place of that function.
        axes: the dynamic axes that the task file asks for, {input: {axis: name}}.
        first: the first item of the calibration data.
        floats: the type of the model's weights, for inputs whose type nobody says.
    """

    where: str
    options: tuple[ShapeOption, ...] = ()
    example: dict[str, Any] | tuple[Any, ...] | None = None
    example_where: str = ""
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    first: Item | None = None
    floats: str = "float32"


def find_shapes(loaded: Loaded, signature: Signature, said: Said) -> dict[Argument, Wanted]:
    """Shape and type of each input.

    Each size by the first that says it: `--input-shape`, the model file, the first calibration sample, 1 for
    an axis that is the batch. A zoo network has its usual shape when nothing else is said.

    Raises:
        BadInput: nobody says a size, or two say different ones.
    """
    options, samples = bind_options(signature, said), _bind_sample(signature, said.first)
    arguments = loaded.arguments or tuple(options) or tuple(samples)
    if not arguments and loaded.usual_shape is not None:
        only = signature.arguments[0] if signature.arguments else Argument(name="input")
        return {only: (loaded.usual_shape, said.floats)}
    if not arguments:
        raise BadInput(
            "nothing says which shapes the model takes",
            where=said.where,
            todo="add `--input-shape 1x3x224x224`, give calibration data, or define example_inputs()",
        )
    by_name = {argument.name: sample for argument, sample in samples.items()}
    sources = [
        _Source(argument=argument, option=options.get(argument), sample=by_name.get(argument.name))
        for argument in arguments
    ]
    batches = {words[0] for source in sources if 0 in (words := source.words())}
    return {
        source.argument: (_find_sizes(source, batches, said.where), _find_dtype(source, said.floats))
        for source in sources
    }


def bind_options(signature: Signature, said: Said) -> dict[Argument, ShapeOption]:
    """Each `--input-shape` with its input. A file that declares its inputs needs them for some only."""
    named = {option.name: option for option in said.options if option.name is not None}
    if not said.options:
        return {}
    known = {argument.name: argument for argument in signature.arguments}
    if named and signature.arguments and signature.declared:
        unknown = next((name for name in named if name not in known), None)
        if unknown is not None:
            todo = nearest(unknown, known) or inputs_are(list(known))
            raise BadInput(f"no input `{unknown}`", where="--input-shape", todo=todo)
        return {known[name]: option for name, option in named.items()}
    return bind(signature, named or said.options, "--input-shape")


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """The first calibration sample of one input; `stacked` when axis 0 may count samples."""

    array: np.ndarray
    stacked: bool
    where: str

    def sizes(self, rank: int | None) -> tuple[int | None, ...]:
        """Sizes of one call; None where they count samples. Rank None: as the array itself has."""
        shape: tuple[int | None, ...] = self.array.shape
        if self.stacked and rank == len(shape) - 1:
            return shape[1:]
        return (None, *shape[1:]) if self.stacked and shape else shape


def _bind_sample(signature: Signature, first: Item | None) -> dict[Argument, _Sample]:
    if first is None:
        return {}
    return {
        argument: _Sample(
            array=to_array(leaf, f"`{argument.name}`", first.where), stacked=first.stacked, where=first.where
        )
        for argument, leaf in bind(signature, first.given, first.where).items()
    }


@dataclass(frozen=True, kw_only=True)
class _Source:
    """All that is known of one input."""

    argument: Argument
    option: ShapeOption | None
    sample: _Sample | None

    def words(self) -> dict[int, str]:
        """The names of its dynamic axes."""
        own = {axis: size for axis, size in enumerate(self.argument.shape or ()) if isinstance(size, str)}
        return own | (self.option.words if self.option is not None else {})


def _find_sizes(source: _Source, batches: set[str], where: str) -> tuple[int, ...]:
    says: list[Sequence[int | str | None]] = []
    if source.option is not None:
        check_shape(source.argument, source.option.sizes, "--input-shape")
        says.append(source.option.sizes)
    if source.argument.shape is not None:
        says.append(source.argument.shape)
    if source.sample is not None:
        measured = source.sample.sizes(len(says[0]) if says else None)
        if says and not _agree(measured, says[0]):
            raise _misfit(source.argument.name, source.sample.array.shape, says[0], source.sample.where)
        says.append(measured)
    if not says:
        raise _no_size(source, None, where)
    sizes = []
    for axis, column in enumerate(zip(*says, strict=True)):
        is_batch = axis == 0 or source.words().get(axis) in batches
        size = next((size for size in column if isinstance(size, int)), 1 if is_batch else None)
        if size is None:
            raise _no_size(source, axis, where)
        sizes.append(size)
    return tuple(sizes)


def _find_dtype(source: _Source, floats: str) -> str:
    said = (source.option.dtype if source.option is not None else None) or source.argument.dtype
    if said is not None or source.sample is None:
        return said or floats
    # numpy makes float64 of everything, and no network is meant to run in it unless its weights are.
    dtype = source.sample.array.dtype
    return floats if dtype.kind == "f" else dtype.name


def _no_size(source: _Source, axis: int | None, where: str) -> BadInput:
    name, words = source.argument.name, source.words()
    sizes = enumerate(source.argument.shape or (1, None))
    shape = "x".join(str(size) if isinstance(size, int) else "1" if at == 0 else "SIZE" for at, size in sizes)
    word = f" (`{words[axis]}`)" if axis in words else ""
    what = "no shape" if axis is None else f"no size along axis {axis}{word}"
    return BadInput(
        f"nothing says the sizes of input `{name}`: it has {what}",
        where=where,
        todo=f"write `--input-shape {name}={shape}` with the sizes you deploy, or give calibration data",
    )


def check_shape(argument: Argument, sizes: Sequence[int | None], where: str) -> None:
    """Refuse sizes that the model file's own declaration rules out.

    Raises:
        BadInput: the number of axes or a fixed size differs.
    """
    if argument.shape is not None and not _agree(sizes, argument.shape):
        raise _misfit(argument.name, sizes, argument.shape, where)


def _agree(sizes: Sequence[int | None], expected: Sequence[int | str | None]) -> bool:
    return len(sizes) == len(expected) and all(
        size is None or not isinstance(own, int) or size == own
        for size, own in zip(sizes, expected, strict=True)
    )


def _misfit(
    name: str, sizes: Sequence[int | None], expected: Sequence[int | str | None], where: str
) -> BadInput:
    shown, wanted = (show_shape("?" if size is None else size for size in s) for s in (sizes, expected))
    return BadInput(f"`{name}` is {shown}, the model takes {wanted}", where=where)
