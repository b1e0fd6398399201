"""An artifact: the converted model of one runtime, its files, and how that runtime is asked to run it."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from edgekit.errors import BadInput, OutsideFailure, first_line

if TYPE_CHECKING:
    import numpy as np
    import torch

Arrays = Mapping[str, "np.ndarray"]
Run = Callable[[Arrays], "list[np.ndarray]"]
RuntimeName = Literal["onnxruntime", "openvino", "tflite", "executorch", "tensorrt", "torch"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
EXTRAS: Mapping[str, str] = {"tflite": "tflite", "executorch": "executorch", "torch": "torchao"}
RECORD = "artifact.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The converted model of one runtime.

    Attributes:
        runtime: what executes it.
        path: its main file.
        beside: names of the other files, in the same folder: the weights of an OpenVINO IR.
        inputs, outputs: names in the order of the call, as the task has them; what the file itself calls
            them is the runtime's affair, and stands in `options`.
        options: how the runtime's device half is asked to open it; plain data, which goes into the manifest.
    """

    runtime: RuntimeName
    path: Path
    beside: tuple[str, ...] = ()
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the main one first."""
        return (self.path, *(self.path.with_name(name) for name in self.beside))

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(path.stat().st_size for path in self.files)

    def digest(self) -> str:
        """SHA-256 over the files and the options."""
        found = hashlib.sha256(json.dumps([self.runtime, dict(self.options)], sort_keys=True).encode())
        for path in self.files:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()

    def open(self, *, threads: int = 1, reference: bool = False) -> Run:
        """A function that runs it on this machine, by the very code that runs it on a device.

        Args:
            threads: that one inference may use.
            reference: with the runtime's own rewriting and integer kernels off, as far as it can do without.

        Raises:
            OutsideFailure: the runtime is not installed here.
            BadInput: the runtime refuses the file.
        """
        import numpy as np

        half = importlib.import_module(f"edgekit.ondevice.runner.session_{self.runtime}")
        options = {**self.options, "reference": True} if reference else dict(self.options)
        try:
            run = half.open_session(
                str(self.path), threads=threads, inputs=self.inputs, outputs=self.outputs, options=options
            )
        except ImportError as error:
            raise missing(self.runtime, error) from error
        except Exception as error:
            raise BadInput(f"{self.runtime} refuses it: {first_line(error)}", where=self.path.name) from error

        def call(arrays: Arrays) -> list[np.ndarray]:
            try:
                return [np.asarray(output) for output in run(arrays)]
            except Exception as error:
                what = f"{self.runtime} fails: {first_line(error)}"
                raise BadInput(what, where="the model, at these inputs") from error

        return call

    def copied_to(self, folder: Path) -> Artifact:
        """The same artifact with its files copied into another folder."""
        for path in self.files:
            if path.parent != folder:
                shutil.copyfile(path, folder / path.name)
        return replace(self, path=folder / self.path.name)

    def write_record(self) -> None:
        """Keep what is not in the files beside them; `read_artifact` finds it."""
        data = {
            "runtime": self.runtime,
            "file": self.path.name,
            "beside": list(self.beside),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "options": dict(self.options),
        }
        self.path.with_name(RECORD).write_text(json.dumps(data, sort_keys=True))


def read_artifact(folder: Path) -> Artifact:
    """The artifact that was written into this folder."""
    data = json.loads((folder / RECORD).read_text())
    return Artifact(
        runtime=data["runtime"],
        path=folder / data["file"],
        beside=tuple(data["beside"]),
        inputs=tuple(data["inputs"]),
        outputs=tuple(data["outputs"]),
        options=data["options"],
    )


def missing(runtime: str, error: ImportError) -> OutsideFailure:
    """The refusal where a runtime's package is not installed, with what installs it."""
    extra = EXTRAS.get(runtime)
    package = f"edgekit[{extra}]" if extra else "edgekit"
    return OutsideFailure(
        f"{runtime} is not installed here: {first_line(error)}", todo=f"pip install '{package}'"
    )


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A float network as one runtime takes it, and what its steps may start from.

    Attributes:
        graph: the float ONNX graph: what every runtime's artifact is compared with, and what the cost model
            reads.
        artifact: of the runtime, in float; for onnxruntime its file is the graph.
        network: makes the torch network that the graph was exported from, after the network steps, in
            evaluation mode; None where the task brings an ONNX file.
    """

    graph: Path
    artifact: Artifact
    network: Callable[[], torch.nn.Module] | None = None
