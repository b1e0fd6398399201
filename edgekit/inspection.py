"""Look at a bundle or a model: layers, parameters, multiply-accumulates, the peak of its activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit.graph.layers import Layer, describe
from edgekit.graph.prepare import NEWEST_IR, NEWEST_OPSET, graphs, is_quantized, opset_of, shape_of


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a network is, at the shapes of one call.

    Attributes:
        inputs: name, shape (a text is a dynamic axis) and dtype of each.
        layers: none where the artifact is not an ONNX file; what follows is then unknown, None.
        params: weight elements.
        macs: multiply-accumulates of one call.
        weight_bytes: bytes of all weights.
        activation_peak_bytes: most activation bytes alive at once when nodes run in order.
        quantized: whether it computes on integers.
        facts: what else is known, in words: the opset, of a bundle its target, runtime and outcome.
    """

    name: str
    inputs: tuple[tuple[str, tuple[int | str, ...], str], ...]
    outputs: tuple[tuple[str, tuple[int | str, ...], str], ...]
    layers: tuple[Layer, ...]
    facts: dict[str, str]
    params: int | None = None
    macs: int | None = None
    weight_bytes: int | None = None
    activation_peak_bytes: int | None = None
    quantized: bool | None = None


def inspect_model(source: str, given: Any) -> Inspection:
    """Inspect whatever `edgekit build` takes.

    Args:
        source: a task file, a model file, a name.
        given: the data options, an `edgekit.task.load.Given`.

    Raises:
        BadInput: the source cannot be loaded, or its network cannot be converted.
    """
    from edgekit.runtimes.float_graph import float_graph
    from edgekit.task.load import load_task

    task = load_task(source, given)
    model, notes = float_graph(task.model, task, opset=NEWEST_OPSET, ir_version=NEWEST_IR)
    origin = "an ONNX file" if isinstance(task.model, onnx.ModelProto) else type(task.model).__name__
    facts = {"network": origin, "notes": "; ".join((*task.notes, *notes))}
    return _inspect(task.name, model, task.named(task.example), facts)


def inspect_bundle(bundle: Path) -> Inspection:
    """Inspect a bundle's artifact at the shapes of its first golden sample.

    No code of the bundle is executed; an ONNX graph is run once, to know the shapes. Of another runtime's
    artifact the layers are not listed.

    Raises:
        BadInput: it is no bundle, or what is in it cannot be read.
    """
    from edgekit.bundle.golden import first_call
    from edgekit.bundle.manifest import confine, read_manifest
    from edgekit.task.onnx_file import load_onnx

    manifest = read_manifest(bundle)
    facts = {
        "target": manifest.device.target,
        "runtime": f"{manifest.runtime.name} {manifest.runtime.version}",
        "threads": str(manifest.runtime.threads),
        "recipe": " + ".join(str(step["step"]) for step in _steps(manifest.recipe))
        or "none: as it was given",
        "made by": f"edgekit {manifest.edgekit}",
    }
    if not manifest.artifact.endswith(".onnx"):
        return Inspection(
            name=manifest.name,
            inputs=tuple((item.name, tuple(item.shape), item.dtype) for item in manifest.inputs),
            outputs=tuple((item.name, tuple(item.shape), item.dtype) for item in manifest.outputs),
            layers=(),
            facts=facts,
        )
    model = load_onnx(confine(bundle, manifest.artifact))
    return _inspect(manifest.name, model, first_call(bundle, manifest), facts)


def _steps(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [step for step in recipe.get("steps", []) if isinstance(step, dict) and "step" in step]


def _inspect(
    name: str, model: onnx.ModelProto, call: Mapping[str, np.ndarray], facts: dict[str, str]
) -> Inspection:
    found = describe(model, call)
    return Inspection(
        name=name,
        inputs=_values(model.graph.input),
        outputs=_values(model.graph.output),
        layers=found.layers,
        params=found.params,
        macs=found.macs,
        weight_bytes=sum(
            numpy_helper.to_array(tensor).nbytes
            for graph in graphs(model.graph)
            for tensor in graph.initializer
        ),
        activation_peak_bytes=found.activation_peak,
        quantized=is_quantized(model),
        facts={"opset": str(opset_of(model)), **{key: text for key, text in facts.items() if text}},
    )


def _values(values: Any) -> tuple[tuple[str, tuple[int | str, ...], str], ...]:
    return tuple(
        (
            value.name,
            shape_of(value),
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
        )
        for value in values
    )
