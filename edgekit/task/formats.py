"""Model files: which kind a file is, and the reader for it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from edgekit.errors import BadInput
from edgekit.task.onnx_file import read_onnx
from edgekit.task.pt2 import read_pt2
from edgekit.task.record import Loaded
from edgekit.task.torch_file import read_checkpoint, read_safetensors, read_torchscript
from edgekit.task.usercode import show_path, suggest_file

SUFFIXES = {
    ".onnx": "ONNX",
    ".pt2": "torch.export",
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".ts": "torch",
    ".jit": "torch",
}
ACCEPTED = (
    "a task file `task.py`, `path.py:factory`, `package.module:factory`, a file that ends in "
    ".onnx, .pt2, .safetensors, .pt, .pth, .ts or .jit, `timm/NAME` or `torchvision/NAME`"
)

Kind = Literal["torch.export", "TorchScript", "pickle"]


def read_model_file(path: Path, *, model_factory: str | None, trust_pickle: bool) -> Loaded:
    """Read a model from a file, whatever its format.

    Args:
        path: the file; its suffix says what it is, for `.pt`, `.pth`, `.ts` and `.jit` its content does.
        model_factory: `path.py:function` that makes the network when the file holds only its weights.
        trust_pickle: open a pickle that holds code.

    Raises:
        BadInput: missing, empty, corrupt, of an unknown kind, or it does not fit the factory's network.
    """
    check_file(path)
    format_name = SUFFIXES.get(path.suffix.lower())
    if format_name is None:
        raise BadInput(f"unknown suffix `{path.suffix}`", where=show_path(path), todo=f"give {ACCEPTED}")
    if format_name == "ONNX":
        return read_onnx(path)
    if format_name == "safetensors":
        return read_safetensors(path, model_factory)
    kind: Kind = "torch.export" if format_name == "torch.export" else _sniff_torch(path)
    if kind == "torch.export":
        return read_pt2(path, trust_pickle=trust_pickle)
    if kind == "TorchScript":
        return read_torchscript(path, trust_pickle=trust_pickle)
    return read_checkpoint(path, model_factory=model_factory, trust_pickle=trust_pickle)


def check_file(path: Path) -> None:
    """Refuse a path that is no file, and a file that is not what its name says.

    Raises:
        BadInput: missing, a folder, empty, an HTML page, or a pointer left by Git LFS.
    """
    where = show_path(path)
    if path.is_dir():
        tasks = [item.name for item in path.glob("*.py") if item.name == "task.py"]
        todo = f"did you mean `{show_path(path / tasks[0])}`?" if tasks else f"give {ACCEPTED}"
        raise BadInput("is a folder", where=where, todo=todo)
    if not path.is_file():
        raise BadInput("no such file", where=where, todo=suggest_file(path) or f"give {ACCEPTED}")
    try:
        with path.open("rb") as file:
            head = file.read(512).lstrip()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=where) from error
    if not head:
        raise BadInput("the file is empty", where=where, todo="export or download it again")
    if head.startswith(b"version https://git-lfs"):
        raise BadInput("is a Git LFS pointer, not the file itself", where=where, todo="run `git lfs pull`")
    if head[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise BadInput("is a web page, not a model", where=where, todo="download the file itself")


def _sniff_torch(path: Path) -> Kind:
    """Which of torch's own kinds a `.pt` or `.pth` file is; all but the oldest pickles are zip archives."""
    if not zipfile.is_zipfile(path):
        return "pickle"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
    except Exception:  # noqa: BLE001 - a damaged archive: torch's own reader says what is wrong with it
        return "pickle"
    names = {name.partition("/")[2] for name in entries} | set(entries)
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "torch.export"
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "TorchScript"
    return "pickle"
