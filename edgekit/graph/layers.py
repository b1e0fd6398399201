"""The layers of an ONNX graph: what each computes, reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "dense", "pointwise", "depthwise", "grouped", "gemm", "recurrent", "elementwise", "layout", "other"
]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One node of the graph at the shapes of one example call.

    Attributes:
        name: the node's name, or its first output's.
        op: the operator, "Conv".
        kind: the kernel family.
        macs: multiply-accumulates.
        params: weight elements that the node reads.
        input_elements: elements of the activations read.
        output_elements: elements written.
        precision: "float32", "float16" or "int8": the type that the kernel computes in.
        channels: output channels, 0 where the word makes no sense.
    """

    name: str
    op: str
    kind: Kind
    macs: int
    params: int
    input_elements: int
    output_elements: int
    precision: str
    channels: int
