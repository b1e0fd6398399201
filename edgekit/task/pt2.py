"""A `.pt2` file (torch.export.save): look for code in it, then load it."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import BadInput, first_line
from edgekit.task.record import Argument, Arrays, Loaded
from edgekit.task.usercode import show_path

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# torch.export.load opens these entries with a plain unpickler when the safe one refuses them.
PICKLED = re.compile(r"\.pt$|serialized_(state_dict|constants|example_inputs)")
# It evaluates size expressions as Python, and looks operators up by attribute from these roots.
ARITHMETIC = re.compile(r"[\w\s+\-*/%(),.<>=&|~]*")
CALL_OR_ATTRIBUTE = re.compile(r"\b([a-z_]\w*)\s*\(|__|\.\s*[A-Za-z_]")
SYMPY_FUNCTIONS = {"floor", "ceiling", "sqrt", "log", "exp"}
OPERATOR = re.compile(r"torch\.ops\.\w+\.\w+(\.\w+)*|torch\.(_?sym_\w+|_check\w*)|(_operator|math)\.\w+")


def read_pt2(path: Path, *, trust_pickle: bool) -> Loaded:
    """Load an exported program as a module, with its own example inputs and dynamic axes.

    Raises:
        BadInput: corrupt; holds code and `trust_pickle` is not set; was exported in training mode.
    """
    import torch

    where = show_path(path)
    if not trust_pickle:
        _refuse_code(path, where)
    try:
        with _quiet():
            program = torch.export.load(str(path))
    except Exception as error:
        raise BadInput(
            f"is not an exported program that this torch can read: {first_line(error)}",
            where=where,
            todo="export it again with torch.export.save",
        ) from error
    _check_mode(program, where)
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


def _refuse_code(path: Path, where: str) -> None:
    """Refuse an archive in which loading would run something other than tensor operators.

    Raises:
        BadInput: it is no archive, or it holds code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _find_code(archive)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise BadInput(
            "is not an exported program: the archive is damaged",
            where=where,
            todo="export it again with torch.export.save",
        ) from error
    if found is not None:
        raise BadInput(
            f"holds {found}: opening it could run any code",
            where=where,
            todo="add `--trust-pickle` if you trust where it comes from",
        )


def _find_code(archive: zipfile.ZipFile) -> str | None:
    names = archive.namelist()
    if len(set(names)) < len(names):
        return "two entries of one name"
    pickled = [name for name in names if PICKLED.search(name)]
    for name in names:
        if "/data/aotinductor/" in name:
            return "compiled code"
        if "opaque_obj_" in name:
            return f"the pickled object `{name}`"
        if name.endswith(".json"):
            text = archive.read(name)
            pickled += _pickled_entries(text, names)
            if (found := _find_expression(json.loads(text))) is not None:
                return found
    return next((f"the pickle `{name}`" for name in pickled if not _is_plain(archive.read(name))), None)


def _pickled_entries(text: bytes, names: list[str]) -> list[str]:
    """The entries that a table of weights says are pickles."""
    config = json.loads(text).get("config") if text.startswith(b'{"config"') else None
    entries = {item["path_name"] for item in (config or {}).values() if item.get("use_pickle")}
    return [name for name in names if name.rpartition("/")[2] in entries]


def _find_expression(node: Any) -> str | None:
    """A size expression or an operator name that is more than that, anywhere in a JSON tree."""
    pending = [node]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        if not isinstance(item, dict):
            continue
        pending += item.values()
        expression, target = item.get("expr_str"), item.get("target")
        if isinstance(expression, str) and not is_size_expression(expression):
            return f"the expression `{expression[:60]}`"
        if isinstance(target, str) and _is_looked_up(target) and not is_operator(target):
            return f"the operator `{target[:60]}`"
    return None


def _is_looked_up(target: str) -> bool:
    return target.startswith(("torch", "_operator", "math", "#"))


def is_operator(target: str) -> bool:
    """Whether a target names a tensor operator, or arithmetic on sizes."""
    return OPERATOR.fullmatch(target) is not None and "__" not in target


def is_size_expression(text: str) -> bool:
    """Whether a text is arithmetic over symbols, and calls nothing but sympy's own functions."""
    bare = re.sub(r"Symbol\('\w+'", "Symbol(0", text)
    if ARITHMETIC.fullmatch(bare) is None:
        return False
    return all(match[1] in SYMPY_FUNCTIONS for match in CALL_OR_ATTRIBUTE.finditer(bare))


def _is_plain(data: bytes) -> bool:
    """Whether torch's safe unpickler takes it; an empty entry stands for nothing."""
    import torch

    if not data:
        return True
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        return False
    return True


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


def _example(program: ExportedProgram) -> Arrays | None:
    import torch

    if program.example_inputs is None:
        return None
    arguments, named = program.example_inputs
    leaves = (*arguments, *named.values())
    if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        return None
    return tuple(leaf.detach().cpu().numpy() for leaf in leaves)


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
