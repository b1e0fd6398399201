"""Write a bundle: the artifact, what it must give, what runs it, and what is known about it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from pydantic import ValidationError

from edgekit import __version__, ondevice
from edgekit.artifact import Artifact, RuntimeName
from edgekit.bundle.golden import GoldenSamples, answer, golden_npz
from edgekit.bundle.manifest import (
    FILE,
    File,
    Golden,
    Manifest,
    Runtime,
    first_complaint,
    identity_of,
    write_manifest,
)
from edgekit.bundle.place import disk_trouble
from edgekit.bundle.readme import bundle_readme
from edgekit.bundle.tensors import check_interface, describe_inputs, describe_outputs, inputs_of
from edgekit.cache import digest_file
from edgekit.cost import Cost
from edgekit.errors import BadInput
from edgekit.result import Quality, as_json

if TYPE_CHECKING:
    from edgekit.target import Target

GOLDEN, README, REQUIREMENTS, RUN = "golden.npz", "README.md", "requirements.txt", "run.py"
WHEELS = "wheels"
SESSION = "session_"
# TensorRT makes its engine on the device, and where it cannot, onnxruntime runs the same file.
SESSIONS = {"tensorrt": ("tensorrt", "onnxruntime")}
PARTS_OF = {"engine": "tensorrt", "cudart": "tensorrt"}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a bundle is made of.

    Attributes:
        name: of the bundle, and of the folder in its archive.
        artifact: what its runtime executes.
        graph: the float ONNX graph: names, types and shapes of the inputs and outputs.
        parity_db: how close the artifact is to that graph; None when nothing was compared.
        calls: real inputs by name, at least one call: their ranges go into the manifest, and a few of them
            become the golden samples.
        target: what it was built for; its budget and requirements go into the manifest.
        threads: that one inference uses.
        recipe: as plain data, replayable.
        cost: on the target.
        here: what was measured on this machine, where this machine is not the target.
        versions: of the libraries that made the artifact.
        wheels: by file name, what a device without a network installs; pip is among them.
    """

    name: str
    artifact: Artifact
    graph: onnx.ModelProto
    parity_db: float | None = None
    calls: Sequence[Mapping[str, np.ndarray]]
    target: Target
    threads: int
    recipe: Mapping[str, Any]
    cost: Cost
    here: Cost = field(default_factory=Cost)
    quality: Quality | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    wheels: Mapping[str, Path] = field(default_factory=dict)


def write_bundle(folder: Path, contents: Contents) -> Manifest:
    """Write the bundle into `folder`, which is empty; the same contents give the same bytes.

    Args:
        folder: from `edgekit.bundle.place.fresh_folder`, so that nothing half-written is ever in its place.
        contents: left as they were.

    Raises:
        BadInput: the artifact cannot be run or described.
        VerificationFailed: the artifact gives NaN or infinite values.
        OutsideFailure: the disk is full, or the folder cannot be written.
    """
    files, manifest = _make(contents)
    with disk_trouble(folder.parent):
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name, wheel in contents.wheels.items():
            (folder / WHEELS).mkdir(exist_ok=True)
            shutil.copyfile(wheel, folder / WHEELS / name)
        (folder / RUN).chmod(0o755)
    return manifest


def _make(contents: Contents) -> tuple[dict[str, bytes], Manifest]:
    """Every file of the bundle, and its manifest."""
    artifact, graph = contents.artifact, contents.graph.graph
    check_interface(graph, contents.calls)
    golden = answer(artifact, [_ordered(graph, call) for call in contents.calls], contents.parity_db)
    files = {path.name: path.read_bytes() for path in artifact.files}
    files |= {GOLDEN: golden_npz(golden), **_device_files(artifact.runtime)}
    files[REQUIREMENTS] = _requirements(contents.target, artifact.runtime).encode()
    try:
        manifest = _manifest(contents, graph, golden, files)
    except ValidationError as error:
        raise BadInput(first_complaint(error), where="the manifest of the bundle") from error
    files[README] = bundle_readme(manifest).encode()
    manifest = manifest.model_copy(update={"files": _listed(files, contents.wheels)})
    return {**files, FILE: write_manifest(manifest)}, manifest


def _ordered(graph: onnx.GraphProto, call: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The call with its inputs in the order of the graph, which is the order of the golden samples."""
    return {value.name: np.asarray(call[value.name]) for value in inputs_of(graph)}


def _device_files(runtime: str) -> dict[str, bytes]:
    """`run.py` and its parts, as this edgekit runs them itself; of the runtimes' halves, this runtime's."""
    source = Path(ondevice.__path__[0])
    own = SESSIONS.get(runtime, (runtime,))

    def belongs(name: str) -> bool:
        if name.startswith(SESSION):
            return name.removeprefix(SESSION) in own
        return name != "__init__" and PARTS_OF.get(name, runtime) == runtime

    parts = [path for path in sorted((source / "runner").glob("*.py")) if belongs(path.stem)]
    return {path.relative_to(source).as_posix(): path.read_bytes() for path in (source / RUN, *parts)}


def _requirements(target: Target, runtime: RuntimeName) -> str:
    versions = " or ".join(target.python)
    lines = [f"{name}=={version}" for name, version in sorted(target.requirements_for(runtime).items())]
    return "\n".join([f"# for {target.profile.arch} and Python {versions}", *lines, ""])


def _manifest(
    contents: Contents, graph: onnx.GraphProto, golden: GoldenSamples, files: Mapping[str, bytes]
) -> Manifest:
    target = contents.target
    outputs = {value.name: [arrays[i] for arrays in golden.outputs] for i, value in enumerate(graph.output)}
    artifact = contents.artifact
    runtime = Runtime(
        name=artifact.runtime,
        version=target.version_of(artifact.runtime),
        threads=contents.threads,
        options=as_json({**artifact.options, **_of_the_board(target, artifact.runtime)}),
    )
    return Manifest(
        schema="edgekit.bundle/1",
        name=contents.name,
        edgekit=__version__,
        runtime=runtime,
        device=identity_of(target),
        artifact=artifact.path.name,
        beside=list(artifact.beside),
        inputs=describe_inputs(graph, contents.calls),
        outputs=describe_outputs(graph, outputs),
        recipe=as_json(dict(contents.recipe)),
        cost=_plain(contents.cost),
        here=_plain(contents.here),
        budget=_plain(target.budget),
        quality=None if contents.quality is None else as_json(contents.quality),
        versions=dict(contents.versions),
        requirements=target.requirements_for(artifact.runtime),
        golden=Golden(file=GOLDEN, samples=len(golden.calls), min_snr_db=golden.min_snr_db),
        files=_listed(files, contents.wheels),
    )


def _of_the_board(target: Target, runtime: RuntimeName) -> dict[str, Any]:
    """What a runtime is told of the board: TensorRT's memory to make an engine, onnxruntime's providers."""
    board = target.profile.tensorrt
    if runtime == "tensorrt" and board:
        return {"workspace_mb": board.workspace_mb}
    return (
        {"providers": list(target.providers or ())} if runtime == "onnxruntime" and target.providers else {}
    )


def _plain(cost: Cost) -> dict[str, Any]:
    return dict(cost.as_dict())


def _listed(files: Mapping[str, bytes], wheels: Mapping[str, Path]) -> dict[str, File]:
    """What the manifest says of every file; wheels are large and stay on the disk."""
    found = {
        name: File(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in files.items()
    }
    for name, wheel in wheels.items():
        found[f"{WHEELS}/{name}"] = File(sha256=digest_file(wheel), bytes=wheel.stat().st_size)
    return dict(sorted(found.items()))
