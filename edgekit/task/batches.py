"""Cut arrays of many samples into deployed calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.errors import BadInput, count
from edgekit.task.record import Arrays, InputSpec, show_shape


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Deployed calls cut from one set of arrays.

    Attributes:
        calls: each with the deployed batch.
        samples: how many samples along axis 0 were given, None when nothing was cut.
        left: samples at the end that fill no call; kept in the last call only when it was padded.
    """

    calls: tuple[Arrays, ...]
    samples: int | None
    left: int


def cut_calls(
    arrays: Arrays,
    specs: Sequence[InputSpec],
    example: Arrays,
    *,
    where: str,
    stacked: bool = False,
    pad: bool = False,
) -> Cut:
    """Cut arrays into deployed calls.

    An array that has the shape of the call is one call. One with more along axis 0 is cut in parts of the
    example's batch; a scalar goes with every part.

    Args:
        arrays: in the order of `specs`.
        specs: the inputs; their text sizes fit anything.
        example: one deployed call, which says the batch.
        where: for the line of a refusal.
        stacked: samples may also lie along an axis of their own before those of the call.
        pad: fill the last call by repeating its last sample instead of leaving the rest out.

    Raises:
        BadInput: a shape fits neither way, or two inputs give different numbers of calls.
    """
    parts = [
        _cut_one(array, spec, one, where=where, stacked=stacked, pad=pad)
        for array, spec, one in zip(arrays, specs, example, strict=True)
    ]
    counts = {len(part): spec.name for part, spec in zip(parts, specs, strict=True) if part.repeated is None}
    if len(counts) > 1:
        said = " and ".join(f"{count(number, 'call')} for `{name}`" for number, name in counts.items())
        raise BadInput(f"the inputs do not go together: {said}", where=where)
    number = next(iter(counts), 1)
    calls = tuple(tuple(part.take(index) for part in parts) for index in range(number))
    samples = [part.samples for part in parts if part.samples is not None]
    return Cut(calls=calls, samples=samples[0] if samples else None, left=max(part.left for part in parts))


@dataclass(frozen=True, kw_only=True)
class _Parts:
    pieces: tuple[np.ndarray, ...] = ()
    repeated: np.ndarray | None = None
    samples: int | None = None
    left: int = 0

    def __len__(self) -> int:
        return len(self.pieces)

    def take(self, index: int) -> np.ndarray:
        return self.pieces[index] if self.repeated is None else self.repeated


def _cut_one(
    array: np.ndarray, spec: InputSpec, example: np.ndarray, *, where: str, stacked: bool, pad: bool
) -> _Parts:
    if stacked and array.ndim == example.ndim + 1 and fits(array.shape[1:], spec.shape):
        return _Parts(pieces=tuple(array))
    if array.ndim == example.ndim == 0:
        return _Parts(repeated=array)
    if array.ndim == example.ndim and fits(array.shape[1:], spec.shape[1:]):
        batch = example.shape[0]
        # A first axis that is dynamic and longer than one in the example is a length, not a batch.
        whole = isinstance(spec.shape[0], str) and batch != 1
        if whole or array.shape[0] == batch:
            return _Parts(pieces=(array,))
        return _cut_batch(array, batch, pad)
    expected = f"Nx{show_shape(spec.shape)}" if stacked else show_shape(spec.shape)
    one_short = fits(array.shape, spec.shape[1:])
    raise BadInput(
        f"`{spec.name}` is {show_shape(array.shape)}, expected {expected}",
        where=where,
        todo="add the batch axis" if one_short else None,
    )


def _cut_batch(array: np.ndarray, batch: int, pad: bool) -> _Parts:
    samples = array.shape[0]
    left = samples % batch
    if left and pad:
        array = np.concatenate([array, np.repeat(array[-1:], batch - left, axis=0)])
    whole = len(array) // batch
    pieces = tuple(array[start * batch : (start + 1) * batch] for start in range(whole))
    return _Parts(pieces=pieces, samples=samples, left=left)


def fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Whether a shape is what a spec asks; a text size fits any length."""
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or size == want for size, want in zip(shape, wanted, strict=True)
    )
