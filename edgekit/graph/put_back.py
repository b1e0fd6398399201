"""Put layers of a Q/DQ graph back to float: drop the rounding of their inputs and give them their weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from edgekit.graph.rewrite import drop_unused_weights

HEAVY_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# These change no value, so rounding before them is rounding after them too.
_PASSES = frozenset(
    "Relu Clip MaxPool Reshape Flatten Transpose Squeeze Unsqueeze Identity Slice Split Gather".split()
)


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """The names of the convolutions and matrix products that read dequantized values, in order."""
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [n.name for n in model.graph.node if n.op_type in HEAVY_OPS and dequantized & set(n.input)]


def put_back(
    quantized: onnx.ModelProto, original: onnx.ModelProto, names: Collection[str]
) -> onnx.ModelProto:
    """A copy of the quantized graph with the named layers in float.

    Their inputs are no longer rounded, as far as the values before the rounding exist, and their weights are
    the original's. What others read stays rounded.

    Args:
        quantized: a Q/DQ graph made of `original`; left as it was.
        original: the float graph; its nodes have the names of the quantized graph's.
        names: of nodes that both graphs have.
    """
    graph = _Graph.of(quantized, original)
    for node in [node for node in graph.model.graph.node if node.name in names]:
        for index, value in enumerate(node.input):
            node.input[index] = graph.unrounded(value)
        graph.restore_weights(node)
    drop_dead_nodes(graph.model.graph)
    return graph.model


def restore_weights(
    quantized: onnx.ModelProto, original: onnx.ModelProto, names: Collection[str]
) -> onnx.ModelProto:
    """A copy of the quantized graph in which the named layers have their float weights.

    For layers that compute in float all the same: theirs would be turned into floats at every call.

    Args:
        quantized: a Q/DQ graph made of `original`; left as it was.
        original: the float graph; its nodes have the names of the quantized graph's.
        names: of nodes that both graphs have.
    """
    graph = _Graph.of(quantized, original)
    for node in [node for node in graph.model.graph.node if node.name in names]:
        graph.restore_weights(node)
    drop_dead_nodes(graph.model.graph)
    return graph.model


def drop_dead_nodes(graph: onnx.GraphProto) -> None:
    """Remove the nodes that no output depends on, and the weights that no node reads, in place."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    drop_unused_weights(graph)


@dataclass(frozen=True)
class _Graph:
    """The copy that is changed, who writes each of its values, and the float nodes and weights."""

    model: onnx.ModelProto
    writers: dict[str, onnx.NodeProto]
    floats: dict[str, onnx.NodeProto]
    weights: dict[str, onnx.TensorProto]

    @classmethod
    def of(cls, quantized: onnx.ModelProto, original: onnx.ModelProto) -> _Graph:
        model = onnx.ModelProto()
        model.CopyFrom(quantized)
        return cls(
            model,
            {name: node for node in model.graph.node for name in node.output},
            {node.name: node for node in original.graph.node},
            {tensor.name: tensor for tensor in original.graph.initializer},
        )

    def unrounded(self, value: str) -> str:
        """The value before it was quantized and dequantized, or itself."""
        writer = self.writers.get(value)
        if writer is None:
            return value
        if writer.op_type == "DequantizeLinear":
            quantizer = self.writers.get(writer.input[0])
            if quantizer is None or quantizer.op_type != "QuantizeLinear":
                return value
            return self.unrounded(quantizer.input[0])
        if writer.op_type in _PASSES:
            writer.input[0] = self.unrounded(writer.input[0])
        elif writer.op_type == "Mul" and writer.name not in self.floats:  # SmoothQuant's
            return self.unrounded(writer.input[0])
        return value

    def restore_weights(self, node: onnx.NodeProto) -> None:
        """Give a node the weights of its float original, under names of their own: both may be read."""
        present = {tensor.name for tensor in self.model.graph.initializer}
        for index, value in enumerate(self.floats[node.name].input):
            if value not in self.weights:
                continue
            node.input[index] = f"{value}_in_float"
            if node.input[index] not in present:
                tensor = self.model.graph.initializer.add()
                tensor.CopyFrom(self.weights[value])
                tensor.name = node.input[index]
