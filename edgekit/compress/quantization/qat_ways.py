"""Quantization-aware training as a way of every runtime that has a static one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from edgekit.artifact import Artifact, Converted
from edgekit.compress.context import Context
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.way import Way
from edgekit.errors import BadInput
from edgekit.graph.prepare import opset_of
from edgekit.runtimes.convert import convert
from edgekit.runtimes.float_graph import float_graph
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch


def qat_way(name: str, static: Way) -> Way:
    """A way that fine-tunes the network with rounding in place and then goes the static way.

    The result is the static way's on the untrained network where that keeps more of the task's quality.

    Args:
        name: of the new way.
        static: quantizes the trained network, and the untrained one to compare with.
    """

    def why_not(converted: Converted, settings: Settings, context: Context) -> str:
        if converted.network is None:
            return "an ONNX file cannot be fine-tuned; give the torch network"
        return static.why_not(converted, settings, context)

    def make(
        converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
    ) -> Artifact:
        from edgekit.compress.quantization.qat import trained

        if converted.network is None or task.training is None:
            raise BadInput(
                "it needs training data and a torch network",
                todo="add `training_data()` to the task file, or give --training",
            )
        untrained = converted.network()
        key = {
            "epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "reduce_range": context.reduce_range,
        }
        network = context.kept_weights(key, untrained, lambda: trained(untrained, task, settings, context))
        floats, after, before = (_made(folder / name) for name in ("trained", "trained-int8", "int8"))
        artifacts = [
            static.make(_converted(network, converted, task, floats), settings, task, context, after),
            static.make(converted, settings, task, context, before),
        ]
        losses = [context.measure(artifact.open()).drop or 0.0 for artifact in artifacts]
        if losses[0] > losses[1]:
            context.detail("training lost quality: the untrained network is kept")
        return artifacts[losses[0] > losses[1]]

    return Way(
        name=name,
        runtime=static.runtime,
        method="qat",
        why_not=why_not,
        make=make,
        left_in_float=static.left_in_float,
        by_itself=False,
    )


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _converted(network: torch.nn.Module, like: Converted, task: Task, folder: Path) -> Converted:
    """The network, trained further, as its runtime takes it: at the operator set that it had before."""
    before = onnx.load(like.graph, load_external_data=False)
    graph, _ = float_graph(network, task, opset=opset_of(before), ir_version=before.ir_version)
    onnx.save(graph, folder / "float.onnx")
    runtime = like.artifact.runtime
    place = _made(folder / runtime)
    artifact = convert(runtime, graph, lambda: network, task, place, [])
    return Converted(graph=folder / "float.onnx", artifact=artifact, network=lambda: network)
