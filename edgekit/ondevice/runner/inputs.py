"""Arrays from outside: read them without running anything, and hold them against what the model takes."""

from __future__ import annotations

import os
import zipfile
from typing import Any, Mapping, Sequence

Spec = Mapping[str, Any]
MOST_BYTES = 1 << 30


class WrongInput(Exception):
    """One line: which input, what is wrong, what it must be."""

    status = 2


def read_arrays(path: str, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The arrays of a .npz file by name, or of a .npy file under the empty name.

    Args:
        path: the file.
        names: read only these of a .npz file; None means all.

    Raises:
        WrongInput: the file is missing, not such a file, holds Python objects, or unpacks to over 1 GiB.
    """
    import numpy

    if not os.path.isfile(path):
        raise WrongInput(f"{path}: no such file")
    try:
        size = _unpacked_bytes(path)
        if size > MOST_BYTES:
            raise WrongInput(
                f"{path}: {size / 1e6:.0f} MB of arrays, at most {MOST_BYTES / 1e6:.0f} are read"
            )
        loaded = numpy.load(path, allow_pickle=False)
        if isinstance(loaded, numpy.ndarray):
            return {"": loaded}
        with loaded:
            missing = sorted(set(names or ()) - set(loaded.files))
            if missing:
                raise WrongInput(f"{path}: the array {missing[0]} is missing")
            return {name: loaded[name] for name in names or loaded.files}
    except WrongInput:
        raise
    except Exception as error:  # what damaged archives and arrays raise has no class in common
        raise WrongInput(f"{path}: not a .npy or .npz file of plain arrays") from error


def _unpacked_bytes(path: str) -> int:
    if not zipfile.is_zipfile(path):
        return os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        return sum(item.file_size for item in archive.infolist())


def read_golden(path: str, inputs: Sequence[Spec], outputs: Sequence[Spec], numbers: Sequence[int]) -> Any:
    """The golden samples of the given numbers: a list of (input name -> array, list of output arrays).

    Raises:
        WrongInput: the file is not what the manifest says.
    """
    samples = []
    for s in numbers:
        feeds = {spec["name"]: f"s{s}_i{i}" for i, spec in enumerate(inputs)}
        expected = [f"s{s}_o{o}" for o in range(len(outputs))]
        arrays = read_arrays(path, [*feeds.values(), *expected])
        if "" in arrays:
            raise WrongInput(f"{path}: not a .npz file")
        samples.append(
            ({name: arrays[key] for name, key in feeds.items()}, [arrays[key] for key in expected])
        )
    return samples


def match(arrays: Mapping[str, Any], specs: Sequence[Spec]) -> list[Any]:
    """Put arrays from files into the order of the model's inputs.

    Args:
        arrays: by name; names that are empty or `#1`, `#2` stand for the inputs in their order.
        specs: the model's inputs.

    Raises:
        WrongInput: too many, too few, or an unknown name.
    """
    names = [spec["name"] for spec in specs]
    if all(name == "" or name.startswith("#") for name in arrays):
        if len(arrays) != len(names):
            raise WrongInput(f"{_count(len(arrays))} given, the model takes {len(names)}: {', '.join(names)}")
        return list(arrays.values())
    unknown = sorted(set(arrays) - set(names))
    missing = sorted(set(names) - set(arrays))
    if unknown or missing:
        wrong = f"no input is called {unknown[0]}" if unknown else f"the input {missing[0]} is missing"
        raise WrongInput(f"{wrong}; the model takes {', '.join(names)}")
    return [arrays[name] for name in names]


def check(arrays: Sequence[Any], specs: Sequence[Spec]) -> list[Any]:
    """Hold arrays against the model's inputs; returns them as numpy arrays.

    Raises:
        WrongInput: another number of arrays, another dtype or shape, or NaN.
    """
    import numpy

    if len(arrays) != len(specs):
        names = ", ".join(spec["name"] for spec in specs)
        raise WrongInput(f"{_count(len(arrays))} given, the model takes {len(specs)}: {names}")
    axes: dict[str, int] = {}
    checked = []
    for i, spec in enumerate(specs):
        array = numpy.asarray(arrays[i])
        name, dtype = spec["name"], spec["dtype"]
        if str(array.dtype) != dtype:
            raise WrongInput(
                f"input `{name}` is {array.dtype}, must be {dtype}; convert it with .astype({dtype!r})"
            )
        _check_shape(name, array.shape, spec["shape"], axes)
        if array.dtype.kind == "f" and numpy.isnan(array).any():
            raise WrongInput(f"input `{name}` holds {int(numpy.isnan(array).sum())} NaN values")
        checked.append(array)
    return checked


def _check_shape(name: str, shape: Sequence[int], wanted: Sequence[Any], axes: dict[str, int]) -> None:
    shown = f"input `{name}` has shape {list(shape)}, must be [{', '.join(str(size) for size in wanted)}]"
    if len(shape) != len(wanted):
        raise WrongInput(shown)
    for i, size in enumerate(shape):
        axis = wanted[i]
        if isinstance(axis, int):
            if size != axis:
                raise WrongInput(shown)
        elif size == 0 or axes.setdefault(axis, size) != size:
            detail = "an empty axis" if size == 0 else f"{axis} is {axes[axis]} elsewhere"
            raise WrongInput(f"{shown}: {detail}")


def _count(number: int) -> str:
    return f"{number} array" if number == 1 else f"{number} arrays"
