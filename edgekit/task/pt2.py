"""A `.pt2` file (torch.export.save)."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import BadInput, first_line
from edgekit.task.pt2_code import find_code
from edgekit.task.record import Argument, Arrays, Loaded
from edgekit.task.usercode import show_path

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# What a program of plain tensors is made of; nothing else is handed on to torch.
RECORDS = re.compile(
    r"archive_version|byteorder|models/model\.json|data/sample_inputs/model\.pt|"
    r"data/(weights|constants)/((weight|tensor)_\d+|model_(weights|constants)_config\.json)"
)
AGAIN = "export it again with torch.export.save"
IGNORED = re.compile(r"archive_format|\.data/.*|extra/.*")


def read_pt2(path: Path, *, trust_pickle: bool) -> Loaded:
    """Load an exported program as a module, with its own example inputs and dynamic axes.

    Raises:
        BadInput: corrupt; holds code and `trust_pickle` is not set; was exported in training mode.
    """
    import torch

    where = show_path(path)
    file = str(path) if trust_pickle else _copy_checked(path, where)
    try:
        with _quiet():
            program = torch.export.load(file)
    except Exception as error:
        raise BadInput(
            f"is not an exported program that this torch can read: {first_line(error)}",
            where=where,
            todo=AGAIN,
        ) from error
    _check_mode(program, where)
    _check_call(program, where)
    return Loaded(
        model=program.module(), example=_example(program), arguments=_arguments(program), program=path
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export's warnings back: it logs a traceback before it raises."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _copy_checked(path: Path, where: str) -> io.BytesIO:
    """The archive again with nothing in it but what was looked at.

    torch's loader runs what it unpickles and evaluates, and reads a damaged archive otherwise than zipfile
    does: so the records are read by torch's own reader, and torch is given the copy.

    Raises:
        BadInput: it is no archive, or opening it could run code.
    """
    from torch.export.pt2_archive._package import PT2ArchiveReader, PT2ArchiveWriter

    copy = io.BytesIO()
    try:
        reader = PT2ArchiveReader(str(path))
        records = {name: reader.read_bytes(name) for name in sorted(set(reader.get_file_names()))}
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadInput(
            "is not an exported program: the archive is damaged", where=where, todo=AGAIN
        ) from error
    with PT2ArchiveWriter(copy) as writer:
        for name, data in records.items():
            if IGNORED.fullmatch(name):
                continue
            found = find_code(name, data) if RECORDS.fullmatch(name) else f"the record `{name}`"
            if found is not None:
                raise BadInput(
                    f"holds {found}: opening it could run any code",
                    where=where,
                    todo="add `--trust-pickle` if you trust where it comes from",
                )
            writer.write_bytes(name, data)
    copy.seek(0)
    return copy


def _check_mode(program: ExportedProgram, where: str) -> None:
    """Refuse a program that was traced in training mode: it can no longer be switched."""
    for node in program.graph.nodes:
        name, arguments = str(node.target), node.args
        dropout = name.startswith(("aten.dropout", "aten.native_dropout")) and arguments[2:3] == (True,)
        norm = name.startswith("aten.batch_norm") and arguments[5:6] == (True,)
        if dropout or norm:
            raise BadInput(
                f"was exported in training mode ({name.split('.')[1]} is active)",
                where=where,
                todo="call `model.eval()` before torch.export.export and save it again",
            )


def _check_call(program: ExportedProgram, where: str) -> None:
    """Refuse a program whose call is more than one tensor after another, as an artifact's is."""
    arguments, named = program.call_spec.in_spec.children() if program.call_spec.in_spec else (None, None)
    if arguments is None or named is None:
        return
    if named.num_leaves or arguments.num_leaves != arguments.num_children:
        raise BadInput(
            f"takes inputs by {'keyword' if named.num_leaves else 'nested containers'}",
            where=where,
            todo="wrap the module so that it takes one tensor after another, and export that",
        )


def _example(program: ExportedProgram) -> Arrays | None:
    """The example inputs that the program was exported with, of one sample where the batch is dynamic."""
    import torch

    if program.example_inputs is None:
        return None
    leaves = program.example_inputs[0]
    if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return None
    # torch.export fixes a size of 1: whoever wants a dynamic batch exports two samples.
    pairs = zip(leaves, _arguments(program), strict=True)
    return tuple(
        (leaf[:1] if own.shape and isinstance(own.shape[0], str) and len(leaf) == 2 else leaf)
        .detach()
        .cpu()
        .numpy()
        for leaf, own in pairs
    )


def _arguments(program: ExportedProgram) -> tuple[Argument, ...]:
    """The program's inputs; a symbolic size is the name of a dynamic axis."""
    inputs = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    return tuple(_argument(str(node.target), node.meta.get("val")) for node in nodes)


def _argument(name: str, value: Any) -> Argument:
    import torch

    if not isinstance(value, torch.Tensor):
        return Argument(name=name)
    sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
    shape = tuple(
        size if isinstance(size, int) or size.isidentifier() else f"{name}_{axis}"
        for axis, size in enumerate(sizes)
    )
    return Argument(name=name, shape=shape, dtype=str(value.dtype).removeprefix("torch."))
