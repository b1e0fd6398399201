"""What the user brings, as one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    import torch

Arrays = tuple[np.ndarray, ...]
Predict = Callable[..., Any]

MAX_CALIBRATION = 512


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of the deployed call.

    Attributes:
        name: as the artifact will call it.
        shape: elements along each axis; a text is the name of a dynamic axis.
        dtype: the numpy name, "float32".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model and the data that tells how good it is.

    Attributes:
        name: for folders and reports.
        model: in evaluation mode, on the CPU.
        inputs: in the order of the call.
        output_names: in the order of the flattened outputs; empty leaves them to the exporter.
        example: the arrays of one deployed call.
        calibration: deployed calls, at most `MAX_CALIBRATION`; None when no calibration data was given.
        training: makes a fresh iterable of (input, label) batches; None when there is none.
        evaluate: the user's score of a predict function, higher is better; None when there is none.
        sources_digest: SHA-256 over the user's own source files, the weights, the example and the
            calibration data: equal digests mean an equal task.
        notes: warnings for the report.
    """

    name: str
    model: torch.nn.Module | onnx.ModelProto
    inputs: tuple[InputSpec, ...]
    output_names: tuple[str, ...]
    example: Arrays
    calibration: tuple[Arrays, ...] | None
    training: Callable[[], Iterable[Any]] | None
    evaluate: Callable[[Predict], float | dict[str, Any]] | None
    sources_digest: str
    notes: tuple[str, ...]

    def named(self, call: Arrays) -> dict[str, np.ndarray]:
        """The arrays of a call by input name, which is how a graph takes them."""
        return {spec.name: array for spec, array in zip(self.inputs, call, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One input as the model declares it.

    Attributes:
        shape: a text is the name of a dynamic axis, None a dynamic axis without one; no shape where the
            model does not say (every torch module).
        dtype: the numpy name; None where the model does not say.
        required: whether every call must give it.
    """

    name: str
    shape: tuple[int | str | None, ...] | None = None
    dtype: str | None = None
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model as it came out of its file, function or zoo, and what came with it.

    Attributes:
        example: the example call that the file carries (`.pt2`).
        usual_shape: the input shape that a zoo network is made for.
        arguments: the inputs as the file declares them (ONNX, `.pt2`); None where it does not.
        program: the file that holds the network's code, where that is no Python (`.pt2`, TorchScript).
        notes: warnings for the report.
    """

    model: torch.nn.Module | onnx.ModelProto
    example: Arrays | None = None
    usual_shape: tuple[int, ...] | None = None
    arguments: tuple[Argument, ...] | None = None
    program: Path | None = None
    notes: tuple[str, ...] = ()


def show_shape(shape: Iterable[int | str]) -> str:
    """A shape as people write it: `1x3x224x224`; `scalar` for no axes."""
    return "x".join(str(size) for size in shape) or "scalar"
