"""What compression steps are given."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from networks import calls_of, task_of
from torch import nn

from edgekit.artifact import Artifact, Converted, Run, RuntimeName
from edgekit.compress.context import Context
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.ways import ways_of
from edgekit.result import Quality
from edgekit.runtimes.convert import convert
from edgekit.runtimes.float_graph import float_graph
from edgekit.task.quality import judge_original, measure_quality
from edgekit.task.record import Task


def context_of(task: Task, graph: onnx.ModelProto | Path | None, folder: Path, **changes: Any) -> Context:
    """A context with the quality measured against the float graph; steps on networks need no graph."""
    graph = onnx.load(graph) if isinstance(graph, Path) else graph
    original = judge_original(graph, task) if graph is not None else None

    def measure(run: Run) -> Quality:
        assert original is not None
        return measure_quality(run, task, original)

    context = Context(
        example=dict(zip([spec.name for spec in task.inputs], task.example, strict=True)),
        calls=calls_of(task, 64) if task.calibration else (),
        measure=measure,
        max_drop=0.05,
        round_to=8,
        reduce_range=False,
        folder=fresh(folder),
    )
    return replace(context, **changes)


def built(network: nn.Module, example: Sequence[np.ndarray], **more: Any) -> tuple[Task, onnx.ModelProto]:
    """A task around the network, and its float graph."""
    task = task_of(network, example, **more)
    return task, float_graph(task.model, task, opset=20, ir_version=10)[0]


def converted_of(
    network: nn.Module | onnx.ModelProto,
    example: Sequence[np.ndarray],
    runtime: RuntimeName,
    folder: Path,
    **more: Any,
) -> tuple[Task, Converted]:
    """A task around the network, and the network converted for a runtime."""
    task, graph = built(network, example, **more)
    return task, convert_graph(task, graph, runtime, folder)


def convert_graph(task: Task, graph: onnx.ModelProto, runtime: RuntimeName, folder: Path) -> Converted:
    """The float graph of a task converted for a runtime."""
    place = fresh(folder)
    onnx.save(graph, place / "float.onnx")
    (place / runtime).mkdir()
    torch_network = None if isinstance(task.model, onnx.ModelProto) else lambda: task.model
    artifact = convert(runtime, graph, torch_network, task, place / runtime, [])
    return Converted(graph=place / "float.onnx", artifact=artifact, network=torch_network)


def by_way(
    name: str, task: Task, graph: onnx.ModelProto, folder: Path, calls: Sequence[dict[str, np.ndarray]] = ()
) -> onnx.ModelProto:
    """What one of onnxruntime's ways of quantizing makes of a float graph, with its usual settings."""
    converted = convert_graph(task, graph, "onnxruntime", folder)
    (way,) = [way for way in ways_of("onnxruntime") if way.name == name]
    context = context_of(task, graph, folder, **({"calls": calls} if calls else {}))
    assert way.why_not(converted, Settings(), context) == ""
    made: Artifact = way.make(converted, Settings(), task, context, fresh(folder))
    return onnx.load(made.path)


def fresh(folder: Path) -> Path:
    """A new folder in another one."""
    return Path(tempfile.mkdtemp(dir=folder))
