"""OpenVINO: from the float graph to its IR, in full or half precision."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from edgekit.artifact import Artifact, Converted
from edgekit.errors import BadInput, clean
from edgekit.graph.origin import listed, node_named, origin_of, origins_of
from edgekit.graph.prepare import graphs
from edgekit.ondevice.runner.session_openvino import load, settings_of

if TYPE_CHECKING:
    import openvino
    import torch

    from edgekit.task.record import InputSpec, Task

FILE, WEIGHTS = "model.xml", "model.bin"
PRECISIONS = {"float16": "f16", "bfloat16": "bf16"}
WIDE = frozenset({"int64", "uint64"})

_NO_RULE = re.compile(r"No conversion rule found for operations: ([^\n]+)")
_AT_NODE = re.compile(r"While validating ONNX node '<Node\((?P<operator>\w+)\): (?P<name>[^>']*)>'")
_IN_PASS = re.compile(r"END: node: \w+::(?P<operator>\w+) .*CALLBACK HAS THROWN: (?P<reason>[^\n]+)")
_NOISE = re.compile(r"Exception from |Check '|FrontEnd API|While validating|Summary:|-- Conversion|\[ONNX ")
_AUTOMATIC_NAME = re.compile(r"[A-Z]\w*_\d+")


def convert(
    graph: onnx.ModelProto, network: torch.nn.Module | None, task: Task, folder: Path, notes: list[str]
) -> Artifact:
    """The float IR; see `edgekit.runtimes.convert.convert`.

    It is made from the ONNX graph, not from the torch network: the graph was proven equal to the network, and
    keeps its dynamic axes and names.
    """
    del network
    model = read(graph)
    refuse_fixed(model, task.inputs)
    if wide := [spec.name for spec in task.inputs if spec.dtype in WIDE]:
        notes.append(f"OpenVINO computes {', '.join(wide)} in 32 bits; larger values are refused at run time")
    weights = {tensor.name for tensor in graph.graph.initializer}
    return write(
        model,
        folder,
        inputs=[value.name for value in graph.graph.input if value.name not in weights],
        outputs=[value.name for value in graph.graph.output],
    )


def half(converted: Converted, precision: str, folder: Path) -> Artifact:
    """The IR with its weights in float16, or one that is computed in bfloat16.

    float16 halves the file everywhere, and is computed in float16 where the device can: 64-bit ARM; x86 CPUs
    without float16 arithmetic compute in float32. bfloat16 leaves the file as it was and is computed where
    the CPU has it (AVX512_BF16, AMX), else in float32.

    Args:
        converted: left as it was.
        precision: "float16" or "bfloat16".
        folder: empty; the artifact is written into it.

    Raises:
        BadInput: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise BadInput(f"openvino has no {precision}", where="half", todo=f"use {' or '.join(PRECISIONS)}")
    artifact = converted.artifact
    return write(
        load().Core().read_model(str(artifact.path)),
        folder,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        options={"precision": PRECISIONS[precision]},
        half_weights=precision == "float16",
    )


def read(graph: onnx.ModelProto) -> openvino.Model:
    """An ONNX graph as an OpenVINO model, which the CPU plugin takes.

    `Core.read_model` would do for running it, but leaves the reshaping of depthwise weights in the graph:
    NNCF then gives the scales a wrong axis, and the plugin computes all depthwise convolutions in float.

    Raises:
        BadInput: OpenVINO lacks an operator or refuses one; names it and its place.
    """
    package = load()
    try:
        model = package.convert_model(io.BytesIO(graph.SerializeToString()))
        core = package.Core()
        core.compile_model(model, "CPU", settings_of(core, 1, {}))
    except Exception as error:  # OpConversionFailure has no base but RuntimeError, nor has the plugin's own
        raise _refusal(str(error), graph) from error
    _name_by_order(model)
    return model


def write(
    model: openvino.Model,
    folder: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: Mapping[str, Any] | None = None,
    half_weights: bool = False,
) -> Artifact:
    """An OpenVINO model as an artifact; equal models give equal bytes.

    Args:
        model: the names of its automatically named nodes are changed.
        folder: where model.xml and model.bin are written.
        inputs: names in the order of the call; the model may lack those that nothing reads.
        outputs: names in the order of the call.
        options: see `edgekit.ondevice.runner.session_openvino.open_session`.
        half_weights: store float32 weights in float16.
    """
    _name_by_order(model)
    path = folder / FILE
    load().save_model(model, str(path), compress_to_fp16=half_weights)
    # A third of the file is indentation: as much as the weights of a small network.
    path.write_bytes(re.sub(rb">\s+<", b"><", path.read_bytes()))
    return Artifact(
        runtime="openvino",
        path=path,
        beside=(WEIGHTS,),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        options=dict(options or {}),
    )


def refuse_fixed(model: openvino.Model, inputs: Sequence[InputSpec]) -> None:
    """Refuse a model that fixes an axis which the task declares dynamic.

    Raises:
        BadInput: it does; says which axis of which input.
    """
    shapes = {name: port.partial_shape for port in model.inputs for name in port.get_names()}
    for spec in inputs:
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str) and spec.name in shapes and shapes[spec.name][axis].is_static:
                raise BadInput(
                    f"OpenVINO fixes axis {axis} (`{size}`) at {shapes[spec.name][axis]}",
                    where=f"input `{spec.name}`",
                    todo="declare a fixed size with --input-shape",
                )


def _name_by_order(model: openvino.Model) -> None:
    """Number the automatic names by position: OpenVINO counts all nodes that a process ever made."""
    for index, node in enumerate(model.get_ordered_ops()):
        if _AUTOMATIC_NAME.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")


def _refusal(text: str, graph: onnx.ModelProto) -> BadInput:
    """The one line that matters of what OpenVINO says, and the place in the user's model."""
    todo = "take another runtime; onnxruntime runs it"
    if missing := _NO_RULE.search(text):
        operators = [_operator(word) for word in missing[1].split(", ")]
        places = listed(origins_of(graph, name) for name in operators)
        return BadInput(f"OpenVINO has no operator {', '.join(operators)}", where=places, todo=todo)
    if thrown := _IN_PASS.search(text):
        # OpenVINO's own names begin with ONNX's: RNNSequence, LSTMSequence.
        known = {node.op_type for each in graphs(graph.graph) for node in each.node}
        operator = next((name for name in sorted(known) if thrown["operator"].startswith(name)), "")
        place = origins_of(graph, operator) if operator else "the model"
        what = f"OpenVINO refuses {thrown['operator']}: {clean(thrown['reason'], 200)}"
        return BadInput(what, where=place, todo=todo)
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    reasons = [line for line in lines if not _NOISE.match(line)]
    reason = clean(reasons[-1] if reasons else lines[0], 200).rstrip(".")
    if at := _AT_NODE.search(text):
        node = node_named(graph, at["name"])
        place = origin_of(node) if node is not None else origins_of(graph, at["operator"])
        return BadInput(f"OpenVINO refuses {at['operator']}: {reason}", where=place, todo=todo)
    return BadInput(f"OpenVINO refuses it: {reason}", where="the model", todo=todo)


def _operator(word: str) -> str:
    """`Det` of "Det-20", `Foo` of "com.acme.Foo"."""
    return word.strip().rpartition(".")[2].partition("-")[0]
