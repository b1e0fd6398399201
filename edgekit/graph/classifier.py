"""Whether a graph is a classifier: then fidelity is top-1 agreement, else a signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

_PASSED_THROUGH = frozenset(
    "Softmax LogSoftmax Identity Reshape Flatten Squeeze Add Cast Clip QuantizeLinear "
    "DequantizeLinear".split()
)
_SCORES = frozenset({"Gemm", "MatMul", "QLinearMatMul", "MatMulInteger"})


def is_classifier(model: onnx.ModelProto, outputs: Sequence[np.ndarray]) -> bool:
    """Whether the only output is a row of class scores for each sample.

    True when it is a float array of shape (samples, classes) that a matrix product writes, directly or
    through Softmax and the like. A pooled feature vector is not: the place of its maximum means nothing.

    Args:
        model: the float graph.
        outputs: of one call.
    """
    if len(outputs) != 1 or outputs[0].ndim != 2 or outputs[0].shape[1] < 2 or outputs[0].dtype.kind != "f":
        return False
    producer = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    node = producer.get(model.graph.output[0].name)
    while node is not None and node.op_type in _PASSED_THROUGH:
        node = next((producer[name] for name in node.input if name in producer and name not in weights), None)
    return node is not None and node.op_type in _SCORES
