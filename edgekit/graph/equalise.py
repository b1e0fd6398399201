"""Equalise the channels of the activations before depthwise convolutions, without changing a result.

Cross-layer equalisation (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction"): a ReLU passes a positive factor, so a convolution's output channels may be divided by what the
next convolution's input channels are multiplied with. Weights are quantized per channel here, activations per
tensor. So the factors follow the observed ranges of the activations; and only before depthwise convolutions,
where every channel has a weight scale of its own and nothing is lost for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit.graph.run import observe

Call = Mapping[str, np.ndarray]
CALLS = 32
MOST = 64.0  # a factor beyond this says that a channel is all but dead


@dataclass(frozen=True)
class _Pair:
    """A convolution and the depthwise one that alone reads it, past an activation."""

    first: onnx.NodeProto
    second: onnx.NodeProto

    @property
    def value(self) -> str:
        """The name of what the second reads."""
        return str(self.second.input[0])


def equalise(model: onnx.ModelProto, calls: Sequence[Call]) -> tuple[onnx.ModelProto, int]:
    """A copy that gives the same outputs on these calls, and how many pairs of layers were equalised.

    The channel that reaches furthest stays as it is and the others are brought up to it. So under a clip at a
    constant (ReLU6) a value that was not cut on these calls is not cut now, and a channel that was cut does
    reach furthest and is not touched.

    Args:
        model: float graph, left as it was.
        calls: calibration calls by input name.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    pairs = _pairs(copy.graph, weights)
    ranges = _channel_ranges(model, calls[:CALLS], [pair.value for pair in pairs])
    for pair in pairs:
        _scale(pair, ranges[pair.value], weights)
    return copy, len(pairs)


def _pairs(graph: onnx.GraphProto, weights: Mapping[str, onnx.TensorProto]) -> list[_Pair]:
    """All pairs, in order; each weight and bias is read by one node only."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def follower(node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The only node that reads its output."""
        following = readers.get(node.output[0], [])
        return following[0] if len(following) == 1 and node.output[0] not in outputs else None

    def is_own(node: onnx.NodeProto | None) -> bool:
        return (
            node is not None
            and node.op_type == "Conv"
            and all(name in weights and len(readers[name]) == 1 for name in node.input[1:])
        )

    found = []
    for first in filter(is_own, graph.node):
        second = follower(first)
        if second is not None and _passes_factors(second, weights):
            second = follower(second)
        if second is not None and is_own(second) and _is_depthwise(second, weights):
            found.append(_Pair(first, second))
    return found


def _passes_factors(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    return node.op_type in ("Relu", "LeakyRelu", "PRelu") or (
        node.op_type == "Clip" and _bound(node, 1, weights) == 0 and _bound(node, 2, weights) is not None
    )


def _bound(node: onnx.NodeProto, index: int, weights: Mapping[str, onnx.TensorProto]) -> float | None:
    """A bound of a Clip, infinite where it has none; None where it is computed."""
    if len(node.input) <= index or not node.input[index]:
        return float("inf") * (1 if index == 2 else -1)
    tensor = weights.get(node.input[index])
    return None if tensor is None else float(numpy_helper.to_array(tensor))


def _channel_ranges(
    model: onnx.ModelProto, calls: Sequence[Call], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel (axis 1) of these values over the calls."""
    found: dict[str, np.ndarray] = {}
    for call in calls if names else ():
        for name, value in observe(model, call, names).items():
            largest = np.abs(value).max(axis=tuple(axis for axis in range(value.ndim) if axis != 1))
            found[name] = np.maximum(found.get(name, 0.0), largest)
    return found


def _scale(pair: _Pair, ranges: np.ndarray, weights: Mapping[str, onnx.TensorProto]) -> None:
    """Divide the first layer's output channels and multiply the second's, in place."""
    largest = ranges.max(initial=0.0)
    if not largest > 0:
        return
    factors = np.maximum(ranges / largest, 1 / MOST)
    for node, scale in ((pair.first, 1 / factors), (pair.second, factors)):
        tensor = weights[node.input[1]]
        array = numpy_helper.to_array(tensor)
        _write(tensor, array * scale.reshape(-1, *[1] * (array.ndim - 1)))
    if len(pair.first.input) > 2:
        bias = weights[pair.first.input[2]]
        _write(bias, numpy_helper.to_array(bias) / factors)


def _is_depthwise(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether each output channel reads one input channel, and each input channel is read once."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    channels, each = weights[node.input[1]].dims[:2]
    return bool(groups == channels > 1 and each == 1)


def _write(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), tensor.name))
