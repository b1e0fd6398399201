"""The way into the runtimes: convert a float network for one of them, in full or half precision."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact, Converted, RuntimeName, missing
from edgekit.errors import BadInput, EdgekitError, OutsideFailure, first_line

if TYPE_CHECKING:
    import onnx
    import torch

    from edgekit.task.record import Task


def convert(
    runtime: RuntimeName,
    graph: onnx.ModelProto,
    network: Callable[[], torch.nn.Module] | None,
    task: Task,
    folder: Path,
    notes: list[str],
) -> Artifact:
    """The float artifact of a runtime; every runtime's module has a `convert` of its own.

    Args:
        runtime: what shall execute it.
        graph: the float ONNX graph, proven equal to the network.
        network: makes the torch network behind it; None where the task brings an ONNX file.
        task: gives the example call, the names and the dynamic axes.
        folder: empty; the artifact is written into it.
        notes: takes what had to be done on the way.

    Raises:
        BadInput: it cannot be converted; names the operator and its place.
        OutsideFailure: the converter is not installed.
    """
    return _missing_said(
        runtime,
        lambda: _module(runtime).convert(graph, network() if network else None, task, folder, notes),
    )


def half(converted: Converted, precision: str, folder: Path) -> Artifact:
    """The float16 or bfloat16 artifact of a converted network.

    Args:
        converted: left as it was.
        precision: "float16" or "bfloat16".
        folder: empty; the artifact is written into it.

    Raises:
        BadInput: the runtime has no such precision, or cannot treat this network.
        OutsideFailure: the converter is not installed.
    """
    runtime = converted.artifact.runtime
    treat = getattr(_module(runtime), "half", None)
    if treat is None:
        raise BadInput(f"{runtime} has no {precision} artifact", where="half")
    return _missing_said(runtime, lambda: treat(converted, precision, folder))


def installed(runtime: RuntimeName) -> OutsideFailure | None:
    """What is missing on this machine to run this runtime's artifacts; None when nothing is."""
    session = importlib.import_module(f"edgekit.ondevice.runner.session_{runtime}")
    try:
        session.version()
    except ImportError as error:
        return missing(runtime, error)
    return None


def _module(runtime: RuntimeName) -> Any:
    return importlib.import_module(f"edgekit.runtimes.{runtime}")


def _missing_said(runtime: RuntimeName, work: Callable[[], Artifact]) -> Artifact:
    try:
        return work()
    except ImportError as error:
        raise missing(runtime, error) from error
    except (EdgekitError, OSError):
        raise
    except Exception as error:  # converters of others, on networks of anyone: another runtime may take it
        what = f"the converter of {runtime} fails: {type(error).__name__}: {first_line(error)}"
        raise BadInput(what, where="the model", todo="take another runtime; --debug shows where") from error
