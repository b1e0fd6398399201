"""The layers of an ONNX graph: what each computes, reads and writes, at the shapes of one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import onnx

from edgekit.graph.run import observe
from edgekit.graph.unfold import unfold

Kind = Literal[
    "dense", "pointwise", "depthwise", "grouped", "gemm", "recurrent", "elementwise", "layout", "other"
]

QUANTIZE_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})
ACTIVATION_OPS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid"})
LAYOUT_OPS = frozenset(
    "Transpose Reshape Flatten Squeeze Unsqueeze Concat Split Slice Gather Expand Tile Pad Identity Shape "
    "Cast Constant ConstantOfShape Range DepthToSpace SpaceToDepth Resize Upsample".split()
)
GEMM_OPS = frozenset(
    "Gemm MatMul MatMulInteger MatMulNBits QLinearMatMul FusedMatMul DynamicQuantizeMatMul".split()
)
RECURRENT_OPS = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})
LOOP_OPS = frozenset({"Loop", "Scan"})  # what they compute is inside of them, and not described
CONV_OPS = frozenset({"Conv", "ConvTranspose", "QLinearConv", "ConvInteger", "FusedConv"})


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
        own_share: share of `params` that no layer before reads: what they add to the file.
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
    own_share: float = 1.0


Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Description:
    """A graph at the shapes of one call.

    Attributes:
        layers: the nodes that compute or move something, in order; quantizers and activations that runtimes
            fuse into the node before them are left out.
        activation_peak: most activation bytes alive at once when nodes run in order.
        params: weight elements of the whole graph, subgraphs included.
    """

    layers: tuple[Layer, ...]
    activation_peak: int
    params: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        return sum(layer.macs for layer in self.layers)


def describe(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> Description:
    """Describe the graph by running it once, so that shapes are the real ones.

    Of an If node the branch that this call takes is described; a Loop or Scan is one layer.

    Args:
        model: left as it was.
        inputs: one call.

    Raises:
        BadInput: the graph does not run on these inputs.
    """
    flat = unfold(model, inputs)
    graph = flat.graph
    values = {**observe(flat, inputs), **inputs}
    sizes = {name: value.nbytes for name, value in values.items()}
    shapes = {name: value.shape for name, value in values.items()}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    shapes.update({name: tuple(tensor.dims) for name, tensor in weights.items()})
    return Description(
        layers=_layers(graph, shapes, weights),
        activation_peak=_activation_peak(graph, sizes),
        params=count_params(model.graph),
    )


def count_params(graph: onnx.GraphProto) -> int:
    """Weight elements in initializers, If and Loop bodies included; scalars and shapes do not count."""
    scales = {name for node in graph.node if node.op_type in QUANTIZE_OPS for name in node.input[1:]}
    own = sum(
        int(prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.dims and tensor.data_type != onnx.TensorProto.INT64 and tensor.name not in scales
    )
    inner = (
        attribute.g
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
    )
    return own + sum(count_params(body) for body in inner)


def _layers(
    graph: onnx.GraphProto, shapes: Shapes, weights: Mapping[str, onnx.TensorProto]
) -> tuple[Layer, ...]:
    producer = {name: node for node in graph.node for name in node.output if name}
    found, met = [], set[str]()
    for node in graph.node:
        if node.op_type in QUANTIZE_OPS or node.op_type == "DynamicQuantizeLinear" or _fused(node, producer):
            continue
        if any(name not in shapes for name in node.output if name) or not node.output:
            continue
        found.append(_layer(node, shapes, weights, producer, met))
    return tuple(found)


def _fused(node: onnx.NodeProto, producer: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether runtimes compute this activation inside the node before it."""
    if node.op_type not in ACTIVATION_OPS or not node.input:
        return False
    before = producer.get(node.input[0])
    while before is not None and before.op_type in QUANTIZE_OPS:
        before = producer.get(before.input[0])
    return before is not None and (before.op_type in CONV_OPS | GEMM_OPS or before.op_type == "Add")


def _layer(
    node: onnx.NodeProto,
    shapes: Shapes,
    weights: Mapping[str, onnx.TensorProto],
    producer: Mapping[str, onnx.NodeProto],
    met: set[str],
) -> Layer:
    """The layer of a node; the weights that it reads are added to those that layers have `met`."""
    behind = {name: _weight_of(name, weights, producer) for name in node.input if name in shapes}
    read = {name: prod(shapes[name]) for name, weight in behind.items() if weight}
    params = sum(read.values())
    new = sum(size for name, size in read.items() if behind[name] not in met)
    met.update(weight for weight in behind.values() if weight)
    activations = [name for name in node.input if name in shapes and name not in read]
    output = shapes[node.output[0]]
    kind, macs = _work(node, shapes)
    return Layer(
        name=node.name or node.output[0],
        op=node.op_type,
        kind=kind,
        macs=macs,
        params=params,
        input_elements=sum(prod(shapes[name]) for name in activations),
        output_elements=sum(prod(shapes[name]) for name in node.output if name in shapes),
        precision=_precision(node, weights, producer),
        channels=output[1] if node.op_type in CONV_OPS and len(output) > 1 else 0,
        own_share=new / params if params else 1.0,
    )


def _weight_of(
    name: str, weights: Mapping[str, onnx.TensorProto], producer: Mapping[str, onnx.NodeProto]
) -> str | None:
    """The initializer behind `name`, through dequantizers and transposes; None for an activation."""
    while name not in weights:
        node = producer.get(name)
        if node is None or node.op_type not in QUANTIZE_OPS | {"Transpose", "Identity", "Cast"}:
            return None
        name = node.input[0]
    return name


def _precision(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], producer: Mapping[str, onnx.NodeProto]
) -> str:
    if "Integer" in node.op_type or node.op_type.startswith(("QLinear", "DynamicQuantize")):
        return "int8"
    before = producer.get(node.input[0]) if node.input else None
    if before is not None and before.op_type == "DequantizeLinear" and before.input[0] not in weights:
        return "int8"
    half = (weights.get(name) for name in node.input)
    if any(tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in half):
        return "float16"
    return "float32"


def _work(node: onnx.NodeProto, shapes: Shapes) -> tuple[Kind, int]:
    if node.op_type in CONV_OPS:
        return _conv_work(node, shapes)
    if node.op_type in GEMM_OPS:
        return "gemm", _gemm_work(node, shapes)
    if node.op_type in RECURRENT_OPS:
        return "recurrent", _recurrent_work(node, shapes)
    if node.op_type in LOOP_OPS:
        return "other", 0
    return ("layout" if node.op_type in LAYOUT_OPS else "elementwise"), 0


def _conv_work(node: onnx.NodeProto, shapes: Shapes) -> tuple[Kind, int]:
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    weight = shapes.get(node.input[3 if node.op_type == "QLinearConv" else 1], ())
    output, data = shapes[node.output[0]], shapes.get(node.input[0], ())
    if len(weight) < 3:
        return "other", 0
    kernel = prod(weight[2:])
    if node.op_type == "ConvTranspose":
        return ("dense" if groups == 1 else "grouped"), prod(data) * weight[1] * kernel
    macs = prod(output) * weight[1] * kernel
    if groups == 1:
        return ("pointwise" if kernel == 1 else "dense"), macs
    return ("depthwise" if weight[1] == 1 else "grouped"), macs


def _gemm_work(node: onnx.NodeProto, shapes: Shapes) -> int:
    left = shapes.get(node.input[0], ())
    if not left:
        return 0
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(shapes[node.output[0]]) * (left[0] if transposed else left[-1])


def _recurrent_work(node: onnx.NodeProto, shapes: Shapes) -> int:
    data, w, r = (shapes.get(name, ()) for name in node.input[:3])
    if len(data) != 3 or not w or not r:
        return 0
    return int(data[0] * data[1] * (prod(w) + prod(r)))


def _activation_peak(graph: onnx.GraphProto, sizes: Mapping[str, int]) -> int:
    """Liveness over the nodes in order: a value lives from its writer to its last reader."""
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last.update({value.name: len(graph.node) for value in graph.output})
    alive = {value.name: sizes.get(value.name, 0) for value in graph.input if value.name in sizes}
    peak = sum(alive.values())
    for index, node in enumerate(graph.node):
        alive.update({name: sizes.get(name, 0) for name in node.output if name})
        peak = max(peak, sum(alive.values()))
        for name in [name for name in alive if last.get(name, index) <= index]:
            del alive[name]
    return peak
