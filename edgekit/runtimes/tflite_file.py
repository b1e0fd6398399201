"""What stands in a .tflite file: its operators and the types that they compute on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.artifact import Artifact

HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D")
OLD = "tflite-runtime"

_FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64")
_WEIGHT = 1  # its place among the inputs of every operator of HEAVY


@dataclass(frozen=True)
class Operator:
    """One operator of the file.

    Attributes:
        kind: "CONV_2D".
        name: of the values that it computes; ai-edge-quantizer's name for it.
        inputs: types of what it is given, "FLOAT32"; "" where an optional one is left out.
        scales: how many scales its weight has; 0 where that is no integer.
        written: places of its outputs among the tensors of the file.
        read: places of its inputs.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    scales: int
    written: tuple[int, ...]
    read: tuple[int, ...]


def operators(path: Path) -> list[Operator]:
    """The operators of all subgraphs, in order."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    return [
        _operator(model, graph, operator) for graph in model.subgraphs for operator in graph.operators or ()
    ]


def _operator(model: Any, graph: Any, operator: Any) -> Operator:
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import get_op_scope

    places = [int(place) for place in operator.inputs]
    types = [
        flatbuffer_utils.type_to_name(graph.tensors[place].type).removeprefix("TensorType.")
        if place >= 0
        else ""
        for place in places
    ]
    scales = 0
    if len(places) > _WEIGHT and places[_WEIGHT] >= 0:
        quantization = graph.tensors[places[_WEIGHT]].quantization
        found = getattr(quantization, "scale", None)
        scales = 0 if found is None else len(found)
    return Operator(
        kind=str(flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)),
        name=get_op_scope(operator, graph.tensors),
        inputs=tuple(types),
        scales=scales,
        written=tuple(int(place) for place in operator.outputs),
        read=tuple(places),
    )


def left_in_float(artifact: Artifact) -> int:
    """Convolutions and dense layers that multiply by float weights.

    Integer weights that are dequantized before the layer count as float: that is how it computes.
    """
    return sum(
        operator.kind in HEAVY and operator.inputs[_WEIGHT] in _FLOATS
        for operator in operators(artifact.path)
    )


def around_shared_outputs(path: Path) -> list[str]:
    """Names of the operators that write, or read, a value which is an output and an input of others too.

    ai-edge-quantizer 0.10 would give out the integers: where a reader is quantized, the output is the value
    after rounding.
    """
    from ai_edge_litert.interpreter import Interpreter

    outputs = {detail["index"] for detail in Interpreter(model_path=str(path)).get_output_details()}
    found = operators(path)
    shared = outputs & {place for operator in found for place in operator.read}
    return [operator.name for operator in found if shared & {*operator.written, *operator.read}]


def surroundings(path: Path) -> dict[str, frozenset[str]]:
    """For each convolution and dense layer the operators between it and the next ones, and itself, by name.

    What stands before the first layer belongs to that; a sum of two layers belongs to both.
    """
    found = operators(path)
    readers: dict[int, list[Operator]] = {}
    for operator in found:
        for place in operator.read:
            readers.setdefault(place, []).append(operator)

    def after(operator: Operator) -> frozenset[str]:
        met, waiting = {operator.name}, [operator]
        while waiting:
            for reader in (one for place in waiting.pop().written for one in readers.get(place, ())):
                if reader.kind not in HEAVY and reader.name not in met:
                    met.add(reader.name)
                    waiting.append(reader)
        return frozenset(met)

    layers = {one.name: after(one) for one in found if one.kind in HEAVY}
    headed = frozenset().union(*layers.values())
    first = [one for one in found if one.name not in headed]
    for one in found:
        if one.kind in HEAVY and any(set(one.read) & set(before.written) for before in first):
            layers[one.name] |= {before.name for before in first}
    return layers


def not_with(path: Path) -> dict[str, str]:
    """Why tflite-runtime 2.14, the newest there is, computes this file wrongly or not at all; for `options`.

    Tried with the real package. It reads one scale of the weights of a dense layer with float inputs, and
    gives wrong numbers for all channels but one, without an error.
    """
    reason = next((said for operator in operators(path) if (said := _unknown_to_old(operator))), "")
    return {OLD: reason} if reason else {}


def _unknown_to_old(operator: Operator) -> str:
    weight = operator.inputs[_WEIGHT] if len(operator.inputs) > _WEIGHT else ""
    hybrid = weight == "INT8" and "FLOAT32" in operator.inputs
    if "INT4" in operator.inputs:
        return "has no int4 weights"
    if operator.kind == "FULLY_CONNECTED" and hybrid and operator.scales > 1:
        return "computes dynamically quantized dense layers wrongly where each channel has its own scale"
    if operator.kind == "TRANSPOSE_CONV" and hybrid:
        return "has no dynamically quantized transposed convolution"
    if operator.kind == "RSQRT" and operator.inputs[0] == "INT16":
        return "has no reciprocal square root of int16"
    return ""


def kinds(path: Path) -> Iterator[str]:
    """The kinds of operators in the file, each once, in alphabetical order."""
    yield from sorted({operator.kind for operator in operators(path)})
