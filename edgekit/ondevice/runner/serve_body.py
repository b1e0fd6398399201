"""Bodies of requests and answers: arrays from JSON, .npy and .npz, and back; nothing in them is run."""

from __future__ import annotations

import io
import json
import math
import zipfile
from typing import Any, Mapping, Sequence

JSON, NPY, NPZ, BYTES = (
    "application/json",
    "application/x-npy",
    "application/x-npz",
    "application/octet-stream",
)
TAKEN = (JSON, NPY, NPZ, BYTES)
MOST_HEADER = 4096  # bytes of the dictionary that begins a .npy file
MOST_ARRAYS = 64


def read(body: bytes, kind: str, specs: Sequence[Any], wrong: Any, most_bytes: int) -> dict[str, Any]:
    """The arrays of a request by name; a single one may stand under the empty name.

    Args:
        body: as it came.
        kind: one of `TAKEN`.
        specs: the model's inputs.
        wrong: the class of the refusals, `inputs.WrongInput`.
        most_bytes: that a .npz file may unpack to.

    Raises:
        WrongInput: it holds no such arrays.
    """
    if kind == JSON:
        return _from_json(body, specs, wrong)
    try:
        return _from_file(body, wrong, most_bytes)
    except wrong:
        raise
    except Exception as error:  # what damaged archives and arrays raise has no class in common
        raise wrong("the body is not a .npy or .npz file of plain arrays") from error


def _from_json(body: bytes, specs: Sequence[Any], wrong: Any) -> dict[str, Any]:
    try:
        data = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise wrong("the body is not valid JSON") from error
    if isinstance(data, dict):
        if set(data) != {"inputs"}:
            raise wrong('the body must be {"inputs": {...}}, or the values of a single input')
        data = data["inputs"]
    if not isinstance(data, dict):
        return {"": _array(data, specs[0], wrong)}
    known = {spec["name"]: spec for spec in specs}
    # A name that no input has is left for `inputs.match` to refuse.
    return {
        name: _array(value, known[name], wrong) if name in known else value for name, value in data.items()
    }


def _array(values: Any, spec: Any, wrong: Any) -> Any:
    """Nested lists of numbers as an array of the input's type; a number that it cannot hold is refused."""
    import numpy

    name, dtype = spec["name"], numpy.dtype(spec["dtype"])
    try:
        found = numpy.asarray(values)
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise wrong(f"input `{name}` must be numbers in nested lists, all of a level equally long") from error
    if found.size == 0:
        return found.astype(dtype)
    if found.dtype.kind not in "biuf":
        raise wrong(f"input `{name}` must be numbers in nested lists, all of a level equally long")
    with numpy.errstate(all="ignore"):
        fitting = found.astype(dtype)
        same = fitting.astype(found.dtype) == found if dtype.kind in "biu" else numpy.isfinite(fitting)
    # JSON as Python reads it may hold NaN and infinite numbers: those are judged by what the model takes.
    if not (same | ~numpy.isfinite(found)).all() or (dtype.kind in "biu" and not numpy.isfinite(found).all()):
        raise wrong(f"input `{name}` holds numbers that {dtype} does not have")
    return fitting


def _from_file(body: bytes, wrong: Any, most_bytes: int) -> dict[str, Any]:
    if body[:6] == b"\x93NUMPY":
        return {"": _npy(body, wrong)}
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        items = archive.infolist()
        size = sum(item.file_size for item in items)
        if len(items) > MOST_ARRAYS or size > most_bytes:
            raise wrong(
                f"the body unpacks to {len(items)} arrays of {size} bytes; at most {most_bytes} are read"
            )
        for item in items:
            # The other methods of a zip file unpack without a bound.
            if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise wrong("the body is packed by a method that numpy does not use")
            with archive.open(item) as file:
                name = item.filename[:-4] if item.filename.endswith(".npy") else item.filename
                arrays[name] = _npy(file.read(item.file_size), wrong)
    return arrays


def _npy(content: bytes, wrong: Any) -> Any:
    """The array of a .npy file; its dictionary is bounded, its size known, before anything is made of it."""
    import numpy

    file = io.BytesIO(content)
    version = numpy.lib.format.read_magic(file)
    wide = version[0] > 1
    if int.from_bytes(content[8 : 12 if wide else 10], "little") > MOST_HEADER:
        raise wrong("the body's array has too long a description")
    reader = numpy.lib.format.read_array_header_2_0 if wide else numpy.lib.format.read_array_header_1_0
    shape, by_columns, dtype = reader(file)
    if dtype.hasobject:
        raise wrong("the body holds Python objects; send plain arrays")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell() or min(shape, default=0) < 0:
        raise wrong("the body's array has not the size that it says")
    flat = numpy.frombuffer(content, dtype, offset=file.tell())
    # A copy, so that it lies in memory as a runtime wants it.
    return numpy.array(flat.reshape(shape, order="F" if by_columns else "C"), order="C")


def best_kind(accepted: str, outputs: int) -> str | None:
    """What to answer with: the first type that the client lists and this server has; None when it has none.

    Args:
        accepted: the header `Accept`; empty takes anything.
        outputs: how many arrays there are; only one fits into a .npy file.
    """
    for part in accepted.lower().split(",") if accepted.strip() else ["*/*"]:
        kind = part.split(";")[0].strip()
        if kind in ("*/*", "application/*", JSON):
            return JSON
        if kind == NPZ or (kind == NPY and outputs == 1):
            return kind
    return None


def write(outputs: Mapping[str, Any], kind: str) -> bytes:
    """The outputs as the body of an answer; in JSON, NaN and infinite values become null."""
    import numpy

    if kind == JSON:
        return json.dumps({"outputs": {name: _plain(array) for name, array in outputs.items()}}).encode()
    file = io.BytesIO()
    if kind == NPY:
        numpy.save(file, next(iter(outputs.values())), allow_pickle=False)
    else:
        numpy.savez(file, **outputs)
    return file.getvalue()


def _plain(array: Any) -> Any:
    import numpy

    values: Any = numpy.asarray(array)
    if values.dtype.kind in "fc" and not numpy.isfinite(values).all():
        bad = ~numpy.isfinite(values)
        values = values.astype(object)
        values[bad] = None
    return values.tolist()
