"""The user's own Python: import it, call it, and name the user's line when it fails."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

import edgekit
from edgekit.errors import BadInput, EdgekitError, first_line
from edgekit.near import nearest

Result = TypeVar("Result")

FUNCTION_SPEC = re.compile(r"(?P<module>.+):(?P<function>[A-Za-z_]\w*)")
MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
NOT_USER_CODE = (
    *(Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")),
    Path(edgekit.__file__).resolve().parent,
)

# What each folder's code imported from beside it: two tasks may each have a `resnet.py`.
_siblings: dict[Path, dict[str, ModuleType]] = {}


def show_path(path: Path) -> str:
    """The path as the user would type it: relative to the current folder when it lies below it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def is_user_file(file: str | None) -> bool:
    """Whether a source file is the user's own: not the standard library, an installed package or edgekit."""
    if not file or file.startswith("<"):
        return False
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in NOT_USER_CODE)


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Let imports in the block find the modules beside the task, and no other task's of the same name."""
    folder = folder.resolve()
    for other in _siblings.keys() - {folder}:
        for name, module in _siblings[other].items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    sys.modules.update(_siblings.get(folder, {}))
    known = set(sys.modules)
    # The folder stays on the path afterwards: a generator or a worker process may import later.
    _put_on_path(folder)
    try:
        yield
    finally:
        new = {name: sys.modules[name] for name in set(sys.modules) - known}
        mine = {name: module for name, module in new.items() if is_user_file(module_file(module))}
        _siblings.setdefault(folder, {}).update(mine)


def _put_on_path(folder: Path) -> None:
    entry, here = str(folder), str(Path.cwd())
    if sys.path[:1] != [entry]:
        sys.path[:] = [entry, *(item for item in sys.path if item != entry)]
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()


def module_file(module: object) -> str | None:
    """The source file of an entry of `sys.modules`, without waking a lazy module."""
    file = getattr(module, "__dict__", {}).get("__file__")
    return file if isinstance(file, str) else None


@contextlib.contextmanager
def blame(label: str) -> Iterator[None]:
    """Turn whatever the user's code raises in the block into one line with the user's file and line.

    Args:
        label: what to name when no frame of the user's is in the traceback.

    Raises:
        BadInput: `examples/x.py:12 in model(): ValueError: ...`
    """
    try:
        yield
    except EdgekitError:
        raise
    except SyntaxError as error:
        where = f"{show_path(Path(error.filename))}:{error.lineno}" if error.filename else label
        raise BadInput(f"{type(error).__name__}: {error.msg}", where=where) from error
    except (Exception, SystemExit) as error:
        raise BadInput(_describe(error), where=find_frame(error) or label, todo=_advise(error)) from error


def find_frame(error: BaseException) -> str | None:
    """The innermost line of the user's own code in a traceback: `examples/x.py:12 in model()`."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_user_file(frame.filename)]
    if not frames:
        return None
    place = f"{show_path(Path(frames[-1].filename))}:{frames[-1].lineno}"
    return place if frames[-1].name.startswith("<") else f"{place} in {frames[-1].name}()"


def _describe(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the code ends the program (SystemExit: {error.code})"
    name = type(error).__name__
    return f"{name}: {first_line(error)}" if str(error).strip() else name


def _advise(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError):
        return "install it in this environment, or put its file beside the task"
    return None


def guard(function: Callable[..., Result], folder: Path) -> Callable[..., Result]:
    """The same function, importing from `folder` and failing with one line."""
    label = f"{where_defined(function)} in {getattr(function, '__name__', 'function')}()"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Result:
        with importing_from(folder), blame(label):
            return function(*args, **kwargs)

    return call


def guard_items(items: Iterable[Any], label: str, folder: Path) -> Iterator[Any]:
    """The items of a user's iterable; what it raises on the way becomes one line."""
    with importing_from(folder), blame(label):
        iterator = iter(items)
    while True:
        with importing_from(folder), blame(label):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def where_defined(function: Callable[..., Any]) -> str:
    """The file and line at which a user's function begins, or its module."""
    plain = inspect.unwrap(function)
    if isinstance(plain, FunctionType):
        return f"{show_path(Path(plain.__code__.co_filename))}:{plain.__code__.co_firstlineno}"
    return str(getattr(plain, "__module__", "the task"))


def code_of(function: Callable[..., Any]) -> tuple[Path, ...]:
    """The Python file of the module that defines a function; nothing for one that no file holds."""
    plain = inspect.unwrap(function)
    name = getattr(plain, "__module__", None) or type(plain).__module__
    file = module_file(sys.modules.get(name))
    return (Path(file),) if file and file.endswith(".py") else ()


def is_user_function(value: object, path: Path) -> bool:
    """Whether a value is a function that is written in the file."""
    return isinstance(value, FunctionType) and Path(value.__code__.co_filename) == path.resolve()


def import_file(path: Path) -> ModuleType:
    """Import a Python file under a name of its own, so that two tasks named `task.py` do not clash.

    Raises:
        BadInput: the file is missing, or its code raises.
    """
    path = path.resolve()
    if not path.is_file():
        raise BadInput("no such file", where=show_path(path), todo=suggest_file(path))
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:10]
    name = f"edgekit_task_{digest}_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput("is not a Python file", where=show_path(path))
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs: dataclasses, pickle and inspect look a class's module up by name.
    sys.modules[name] = module
    try:
        with importing_from(path.parent), blame(show_path(path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def import_function(spec: str) -> tuple[Callable[..., Any], Path]:
    """The function that `path.py:function` or `package.module:function` names, guarded, and its home folder.

    Raises:
        BadInput: no such file, module or function, or its import raises.
    """
    match = FUNCTION_SPEC.fullmatch(spec)
    if match is None:
        raise BadInput("names no function", where=spec, todo="write `path.py:function`")
    source, name = match["module"], match["function"]
    if source.endswith(".py"):
        module, folder = import_file(Path(source)), Path(source).resolve().parent
    else:
        module, folder = _import_module(source), Path.cwd()
    function = getattr(module, name, None)
    if function is None:
        defined = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise BadInput(f"defines no `{name}`", where=source, todo=nearest(name, defined))
    if not callable(function):
        raise BadInput(f"`{name}` is not a function, it is a {type(function).__name__}", where=source)
    return guard(function, folder), folder


def _import_module(name: str) -> ModuleType:
    if MODULE_NAME.fullmatch(name) is None:
        raise BadInput("is neither a `.py` file nor a module name", where=name)
    with importing_from(Path.cwd()):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        except (Exception, SystemExit) as error:
            raise BadInput(_describe(error), where=find_frame(error) or name) from error
        if found is None:
            raise BadInput(
                "no such module", where=name, todo="run where it can be imported, or write `path.py:function`"
            )
        with blame(name):
            return importlib.import_module(name)


def suggest_file(path: Path) -> str | None:
    """A file of a similar name in the same folder, as advice; None when there is none."""
    if not path.parent.is_dir():
        return f"the folder {show_path(path.parent)} does not exist"
    return nearest(path.name, [item.name for item in path.parent.iterdir()])
