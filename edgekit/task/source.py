"""Which kind of source the user names, and the model that comes out of it."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import BadInput
from edgekit.task.formats import read_model_file
from edgekit.task.record import Loaded
from edgekit.task.taskfile import Parts, read_task_file
from edgekit.task.trial import check_weights
from edgekit.task.usercode import FUNCTION_SPEC, code_of, import_function, show_path, where_defined
from edgekit.task.zoo import is_zoo_name, load_zoo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the user's first argument brings.

    Attributes:
        name: for folders and reports.
        where: for the line of a refusal.
        loaded: the model, in evaluation mode, on the CPU, its weights finite.
        parts: what the task file defines besides, where it is one.
        code: the Python files in which its functions stand.
        identity: what tells it from a source of the same code and weights: the factory, the zoo's name.
    """

    name: str
    where: str
    loaded: Loaded
    parts: Parts = field(default_factory=Parts)
    code: tuple[Path, ...] = ()
    identity: str = ""


def open_source(source: str, *, model_factory: str | None, trust_pickle: bool) -> Source:
    """Load a task file, the result of a factory, a model file or a network of a zoo.

    Raises:
        BadInput: it is none of these, or it cannot be used; the line says why.
        OutsideFailure: the zoo is not installed.
    """
    path = Path(source)
    if is_zoo_name(source):
        found = Source(name=path.name, where=source, loaded=load_zoo(source), identity=source)
    elif path.suffix == ".py":
        found = _open_task_file(path, model_factory, trust_pickle)
    elif FUNCTION_SPEC.fullmatch(source) and not path.exists():
        found = _open_factory(source, model_factory, trust_pickle)
    else:
        loaded = read_model_file(path, model_factory=model_factory, trust_pickle=trust_pickle)
        code = _factory_code(model_factory)
        found = Source(name=path.stem, where=show_path(path), loaded=loaded, code=code)
    return _ready(found)


def module_source(module: torch.nn.Module) -> Source:
    """A module at hand as a source; a copy of it.

    Raises:
        BadInput: a weight is not a number.
    """
    name = type(module).__name__
    return _ready(Source(name=name, where=name, loaded=Loaded(model=copy.deepcopy(module))))


def _ready(found: Source) -> Source:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", found.name).strip("-.") or "model"
    return replace(found, name=name, loaded=_make_ready(found.loaded, found.where))


def _open_task_file(path: Path, model_factory: str | None, trust_pickle: bool) -> Source:
    model, parts = read_task_file(path)
    where = f"{where_defined(model)} in model()"
    loaded = _load_returned(model(), path.parent, where, model_factory, trust_pickle)
    code = (path, *_factory_code(model_factory))
    name = path.resolve().parent.name if path.stem == "task" else path.stem
    return Source(name=name, where=show_path(path), loaded=loaded, parts=parts, code=code)


def _open_factory(source: str, model_factory: str | None, trust_pickle: bool) -> Source:
    factory, folder = import_function(source)
    loaded = _load_returned(factory(), folder, source, model_factory, trust_pickle)
    name = source.rpartition(":")[2]
    code = (*code_of(factory), *_factory_code(model_factory))
    return Source(name=name, where=source, loaded=loaded, code=code, identity=name)


def _factory_code(model_factory: str | None) -> tuple[Path, ...]:
    return code_of(import_function(model_factory)[0]) if model_factory is not None else ()


def _load_returned(
    given: Any, folder: Path, where: str, model_factory: str | None, trust_pickle: bool
) -> Loaded:
    """The model that a user's function returned, or that lies where the path it returned says."""
    import torch

    if isinstance(given, torch.nn.Module):
        return Loaded(model=given)
    if not isinstance(given, str | os.PathLike):
        raise BadInput(
            f"returns a {type(given).__name__}",
            where=where,
            todo="return a torch.nn.Module, the path of a model file, `timm/NAME` or `torchvision/NAME`",
        )
    if is_zoo_name(str(given)):
        return load_zoo(str(given))
    return read_model_file(folder / given, model_factory=model_factory, trust_pickle=trust_pickle)


def _make_ready(loaded: Loaded, where: str) -> Loaded:
    """The model in evaluation mode on the CPU."""
    import torch

    model = loaded.model
    if not isinstance(model, torch.nn.Module):
        return loaded
    check_weights(model, where)
    # An exported program has no modes: it was exported in evaluation mode, or refused.
    if loaded.program is None or isinstance(model, torch.jit.ScriptModule):
        model.eval()
    return replace(loaded, model=model.cpu())
