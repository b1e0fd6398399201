"""Which weights get 8 bits and which 4, for onnxruntime under a limit of size."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx

from edgekit.artifact import Artifact
from edgekit.compress.calls import RANKING_CALLS, spread
from edgekit.compress.context import Context
from edgekit.compress.quantization.sensitivity import layers_of, most_in_float, output_error, rank
from edgekit.compress.quantization.weights_onnxruntime import Bits, quantize_weights, weight_layers
from edgekit.graph.run import opened
from edgekit.runtimes.onnxruntime import as_artifact


def widest(model: onnx.ModelProto, context: Context, *, group_size: int) -> tuple[str, ...]:
    """The layers to store in 8 bits, the most sensitive first, as many as the size limit leaves room for.

    Args:
        model: float graph, left as it was.
        context: gives the calibration calls and the size limit; without one of them there is no such layer.
        group_size: weights that share a scale where they have 4 bits.
    """
    if context.most_bytes is None or not context.calls:
        return ()
    most, layers = context.most_bytes, weight_layers(model)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder) / "trial.onnx"

        def make(wide: Collection[str]) -> Artifact:
            bits: dict[str, Bits] = {
                name: 8 if name in wide or 4 not in able else 4 for name, able in layers.items()
            }
            onnx.save(quantize_weights(model, bits, group_size=group_size), path)
            return as_artifact(path)

        narrow = [name for name, able in layers.items() if 4 in able]
        error = output_error(opened(model), spread(context.calls, RANKING_CALLS))
        ranked = layers_of(rank(narrow, make, error, context.detail))
        return most_in_float(ranked, make, lambda artifact: artifact.size_bytes <= most) or ()
