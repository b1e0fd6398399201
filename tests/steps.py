"""What compression steps are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from networks import calls_of, task_of
from torch import nn

from edgekit.compress.context import Context
from edgekit.result import Quality
from edgekit.runtimes.onnxruntime import convert
from edgekit.task.quality import judge_original, measure_quality
from edgekit.task.record import Task


def context_of(task: Task, model: onnx.ModelProto | None, **changes: Any) -> Context:
    """A context with the quality measured against the float graph; steps on networks need no graph."""
    original = judge_original(model, task) if model is not None else None

    def measure(graph: onnx.ModelProto) -> Quality:
        assert original is not None
        return measure_quality(graph, task, original)

    context = Context(
        example=dict(zip([spec.name for spec in task.inputs], task.example, strict=True)),
        calls=calls_of(task, 64) if task.calibration else (),
        measure=measure,
        max_drop=0.05,
        round_to=8,
        reduce_range=False,
    )
    return replace(context, **changes)


def built(network: nn.Module, example: Sequence[np.ndarray], **more: Any) -> tuple[Task, onnx.ModelProto]:
    """A task around the network, and its float graph."""
    task = task_of(network, example, **more)
    return task, convert(network, task, opset=20, ir_version=10)[0]
