"""Calibration data: open what the user named, and make deployed calls of it."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import BadInput, count, first_line
from edgekit.task.batches import cut_calls
from edgekit.task.leaves import as_named, cast, check_finite, in_order
from edgekit.task.record import MAX_CALIBRATION, Arrays, InputSpec
from edgekit.task.usercode import guard_items, import_function, show_path, suggest_file, where_defined

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
ARRAYS = {".npz", ".npy"}
MAX_BYTES = 2 * 10**9
ACCEPTED = "give a `.npz` file, a folder of `.npz` or `.npy` files, or `file.py:function`"


@dataclass(frozen=True, kw_only=True)
class Item:
    """What was given for one call or for many of them, not yet checked.

    Attributes:
        given: leaves by name or in order.
        stacked: the samples may lie along an axis of their own, before the axes of the call.
    """

    given: dict[str, Any] | tuple[Any, ...]
    where: str
    stacked: bool


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration data that is not read yet."""

    items: Iterator[Item]
    where: str


def open_calibration(spec: str) -> Calibration:
    """Open `FILE.npz`, a folder of arrays, or `file.py:function`.

    Raises:
        BadInput: it is none of these, or there is nothing in it to read.
    """
    path = Path(spec)
    if path.is_dir():
        return _open_folder(path)
    if path.suffix.lower() in ARRAYS:
        return Calibration(items=iter([_read_arrays(path)]), where=show_path(path))
    if path.suffix.lower() in IMAGES:
        raise _refuse_images(show_path(path))
    if ":" in spec:
        function, folder = import_function(spec)
        return from_function(function, folder)
    if not path.exists():
        raise BadInput("no such file", where=spec, todo=suggest_file(path) or ACCEPTED)
    raise BadInput("is not calibration data", where=spec, todo=ACCEPTED)


def from_function(function: Callable[..., Any], folder: Path) -> Calibration:
    """The items that a user's guarded function gives.

    Raises:
        BadInput: the function raises.
    """
    label = f"{where_defined(function)} in {function.__name__}()"
    given = guard_items(function(), label, folder)
    items = (
        Item(given=as_named(item, f"{label}, item {index}"), where=f"{label}, item {index}", stacked=False)
        for index, item in enumerate(given)
    )
    return Calibration(items=items, where=label)


class Batches:
    """A user's batches, read anew each time; what they raise on the way becomes one line."""

    def __init__(self, items: Any, label: str, folder: Path) -> None:
        self.items, self.label, self.folder = items, label, folder

    def __iter__(self) -> Iterator[Any]:
        return guard_items(self.items, self.label, self.folder)


class CountedBatches(Batches):
    """The same, where the user's object knows how many there are."""

    def __len__(self) -> int:
        return len(self.items)


def open_training(function: Callable[..., Any], folder: Path) -> Callable[[], Iterable[Any]]:
    """A function that gives the batches which the user's guarded function returns."""
    label = f"{where_defined(function)} in {function.__name__}()"

    def fresh() -> Iterable[Any]:
        given = function()
        if isinstance(given, Iterator):
            return guard_items(given, label, folder)
        if not isinstance(given, Iterable):
            raise BadInput(f"returns a {type(given).__name__}", where=label, todo="return a DataLoader")
        return (CountedBatches if isinstance(given, Sized) else Batches)(given, label, folder)

    return fresh


def _open_folder(folder: Path) -> Calibration:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ARRAYS)
    if not files:
        if any(path.suffix.lower() in IMAGES for path in folder.iterdir()):
            raise _refuse_images(show_path(folder))
        raise BadInput("the folder holds no `.npz` or `.npy` files", where=show_path(folder), todo=ACCEPTED)
    return Calibration(items=(_read_arrays(path) for path in files), where=show_path(folder))


def _refuse_images(where: str) -> BadInput:
    return BadInput(
        "images are not read, because only you know how the model wants them scaled and normalised",
        where=where,
        todo="give `file.py:function`, a function that yields the arrays the model takes",
    )


def _read_arrays(path: Path) -> Item:
    """The arrays of a `.npz` by name, or of a `.npy`."""
    where = show_path(path)
    if not path.is_file():
        raise BadInput("no such file", where=where, todo=suggest_file(path))
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return Item(given=(content,), where=where, stacked=True)
        with content:
            arrays = {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, KeyError, SyntaxError, zipfile.BadZipFile, MemoryError) as error:
        raise BadInput(f"is not a numpy file that can be read: {first_line(error)}", where=where) from error
    except Exception as error:
        # A damaged archive ends in whatever zlib, struct or the header's parser make of it.
        raise BadInput(f"is damaged: {type(error).__name__}: {first_line(error)}", where=where) from error
    if not arrays:
        raise BadInput("the file holds no arrays", where=where)
    # np.savez without names calls them arr_0, arr_1, ...
    unnamed = [f"arr_{index}" for index in range(len(arrays))]
    in_turn = set(arrays) == set(unnamed)
    given = tuple(arrays[name] for name in unnamed) if in_turn else arrays
    return Item(given=given, where=where, stacked=True)


def peek(calibration: Calibration) -> tuple[Item, Calibration]:
    """The first item, and the data with that item still in it.

    Raises:
        BadInput: there is none.
    """
    first = next(calibration.items, None)
    if first is None:
        raise _is_empty(calibration.where)
    items = itertools.chain([first], calibration.items)
    return first, Calibration(items=items, where=calibration.where)


def _is_empty(where: str) -> BadInput:
    return BadInput("the calibration data is empty", where=where, todo="give at least one sample")


def read_calibration(
    calibration: Calibration, specs: Sequence[InputSpec], example: Arrays
) -> tuple[tuple[Arrays, ...], tuple[str, ...]]:
    """The deployed calls, at most `MAX_CALIBRATION`, and notes on what was left out.

    Raises:
        BadInput: no sample at all, or one that the model cannot take; the line says which.
    """
    room = max(1, MAX_BYTES // max(1, sum(array.nbytes for array in example)))
    most = min(MAX_CALIBRATION, room)
    calls: list[Arrays] = []
    left, more = 0, False
    for item in calibration.items:
        if len(calls) >= most:
            more = True
            break
        new, rest = _calls_of(item, specs, example)
        calls += [_checked(call, specs, item.where) for call in new[: most - len(calls)]]
        left, more = left + rest, more or len(calls) >= most < len(calls) + len(new)
    if not calls:
        raise _is_empty(calibration.where)
    notes = []
    if left:
        notes.append(
            f"{calibration.where}: {count(left, 'sample')} left out, they do not fill the deployed batch"
        )
    if more:
        notes.append(f"{calibration.where}: only the first {count(most, 'call')} are used for calibration")
    return tuple(calls), tuple(notes)


def _calls_of(item: Item, specs: Sequence[InputSpec], example: Arrays) -> tuple[tuple[Arrays, ...], int]:
    arrays = in_order(item.given, [spec.name for spec in specs], item.where)
    cut = cut_calls(arrays, specs, example, where=item.where, stacked=item.stacked)
    return cut.calls, cut.left


def _checked(call: Arrays, specs: Sequence[InputSpec], where: str) -> Arrays:
    pairs = zip(call, specs, strict=True)
    arrays = tuple(cast(array, spec.dtype, f"`{spec.name}`", where) for array, spec in pairs)
    for array, spec in zip(arrays, specs, strict=True):
        check_finite(array, f"`{spec.name}`", where)
    # A copy of the part alone: a view would keep the whole file's array alive.
    return tuple(np.array(array, order="C") for array in arrays)
