"""One digest over everything that makes a task what it is: equal digests, equal tasks.

Seen are the model, the example, the calibration data and the user's own source files. Files that `evaluate`
or `training_data` read are not seen: nothing says which they are.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.task.inputs import Call
from edgekit.task.record import Arrays
from edgekit.task.source import Source
from edgekit.task.usercode import code_of, is_user_file, module_file

if TYPE_CHECKING:
    import onnx
    import torch


def digest_task(
    source: Source, call: Call, calls: Sequence[Arrays] | None, functions: Mapping[str, Callable[..., Any]]
) -> str:
    """SHA-256 of the task.

    Args:
        source: the model and the code that makes it.
        call: the deployed call.
        calls: the calibration calls.
        functions: the user's functions that are called later, by their role.
    """
    total = hashlib.sha256()
    for part in _parts(source, call, calls, functions):
        # The length first, so that no two lists of parts run together to the same bytes.
        total.update(len(part).to_bytes(8))
        total.update(part)
    return total.hexdigest()


def _parts(
    source: Source, call: Call, calls: Sequence[Arrays] | None, functions: Mapping[str, Callable[..., Any]]
) -> Iterator[bytes]:
    names = [(role, function.__name__) for role, function in functions.items()]
    yield repr((source.identity, names, call.specs, None if calls is None else len(calls))).encode()
    yield from (part for arrays in (call.example, *(calls or ())) for part in _array_parts(arrays))
    model, program = source.loaded.model, source.loaded.program
    yield from _model_parts(model)
    if program is not None:
        yield program.read_bytes()
    files = {*source.code, *_class_files(model)}.union(*map(code_of, functions.values()))
    yield from sorted(path.name.encode() + b"\0" + path.read_bytes() for path in find_sources(files))


def _array_parts(arrays: Arrays) -> Iterator[bytes]:
    for array in arrays:
        yield f"{array.dtype.str} {array.shape}".encode()
        yield array.tobytes()


def _model_parts(model: torch.nn.Module | onnx.ModelProto) -> Iterator[bytes]:
    import torch

    if not isinstance(model, torch.nn.Module):
        yield model.SerializeToString(deterministic=True)
        return
    state = {**model.state_dict(), **dict(model.named_buffers())}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
            yield f"{name} {value!r}".encode()
            continue
        yield f"{name} {value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _class_files(model: torch.nn.Module | onnx.ModelProto) -> set[Path]:
    """The user's files in which the classes of the module and its parts are defined."""
    import torch

    if not isinstance(model, torch.nn.Module):
        return set()
    modules = {sys.modules.get(type(module).__module__) for module in model.modules()}
    return {Path(file) for module in modules if is_user_file(file := module_file(module)) and file}


def find_sources(files: Iterable[Path]) -> set[Path]:
    """The files and, over any number of steps, the user's own files that they import, in functions too."""
    found: set[Path] = set()
    pending = list(files)
    while pending:
        file = pending.pop().resolve()
        if file not in found:
            found.add(file)
            pending += _imported_by(file)
    return found


def _imported_by(file: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (
        SyntaxError,
        ValueError,
    ):  # such a file was not imported: whatever imports it failed, or never did
        return
    folders = [file.parent, *(Path(entry or ".") for entry in sys.path)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _find_module(alias.name, folders)
        if isinstance(node, ast.ImportFrom):
            roots = [file.parents[node.level - 1]] if 0 < node.level <= len(file.parents) else folders
            for alias in node.names:
                yield from _find_module(f"{node.module or ''}.{alias.name}".strip("."), roots)


def _find_module(name: str, roots: Iterable[Path]) -> list[Path]:
    """The user's files that importing a dotted name would run: of the packages, of the module."""
    for root in roots:
        place, files = root, []
        for part in name.split("."):
            files += [place / f"{part}.py", place / part / "__init__.py"]
            place = place / part
        existing = [file for file in files if file.is_file()]
        if existing:
            return [file for file in existing if is_user_file(str(file))]
    return []
