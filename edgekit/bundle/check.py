"""Whether the files of a bundle are what its manifest says."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from edgekit.bundle.manifest import FILE, Manifest, confine
from edgekit.errors import BadInput, VerificationFailed
from edgekit.ondevice.runner import engine as engines
from edgekit.ondevice.runner.check import wrong_files

SIGNATURE = f"{FILE}.sig"  # beside the manifest; see edgekit.bundle.sign
ENGINE_FILES = frozenset(f"engine/{name}" for name in (engines.ENGINE, engines.RECORD, engines.TIMING))


def check_files(bundle: Path, manifest: Manifest) -> tuple[str, ...]:
    """Hold every file against its digest, and look for files that the manifest does not list.

    Returns:
        Notes on what was not checked.

    Raises:
        VerificationFailed: a file is missing, changed, reached by a link, or not listed.
    """
    files = {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in manifest.files.items()}
    for name in sorted(files):
        try:
            confine(bundle, name)
        except BadInput as error:
            raise VerificationFailed(error.what, where=error.where, todo=error.todo) from error
    if wrong := wrong_files(str(bundle), files):
        more = f", and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
        raise VerificationFailed(f"{wrong[0]}{more}", where=str(bundle), todo="copy the bundle again")
    extra = unlisted_files(bundle, files)
    engine = {name for name in extra if manifest.runtime.name == "tensorrt" and name in ENGINE_FILES}
    foreign = [name for name in extra if name not in engine and not _is_bytecode(name, files)]
    if foreign:
        what = f"{foreign[0]} is not listed in {FILE}"
        raise VerificationFailed(what, where=str(bundle), todo="delete it, or copy the bundle again")
    return tuple(
        f"{name} was made by TensorRT at the first start on this device; not checked"
        if name in engine
        else f"{name} is a cache that Python wrote when run.py was imported; not checked"
        for name in extra
    )


def unlisted_files(bundle: Path, files: Collection[str]) -> list[str]:
    """What lies in the folder, links included, beside the manifest, its signature and the listed files."""
    found = []
    for folder, folders, names in os.walk(bundle):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in (*names, *links):
            relative = (Path(folder) / name).relative_to(bundle).as_posix()
            if relative not in (FILE, SIGNATURE) and relative not in files:
                found.append(relative)
    return sorted(found)


def _is_bytecode(name: str, files: Collection[str]) -> bool:
    """Whether it is Python's cache of a listed file; `run.py` itself never loads one for its parts."""
    path = PurePosixPath(name)
    source = path.parent.parent / f"{path.name.split('.')[0]}.py"
    return path.parent.name == "__pycache__" and path.suffix == ".pyc" and str(source) in files
