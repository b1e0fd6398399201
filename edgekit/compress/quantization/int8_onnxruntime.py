"""Int8 by onnxruntime's own quantizers: static and dynamic."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.compress.quantization.settings import Settings
from edgekit.graph.rewrite import transpose_gemms

Call = Mapping[str, np.ndarray]
CHUNK = 8  # calibration calls whose intermediate values are kept at a time, for histograms
PERCENTILE = 99.99  # of the absolute values
# onnxruntime has no integer kernel for a transposed convolution: between Q/DQ pairs it only becomes slower.
LEFT_OUT = frozenset({"ConvTranspose"})


def preprocessed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float graph as the static quantizer likes it: basic fusions done, shapes known."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        source, target = Path(folder) / "in.onnx", Path(folder) / "ready.onnx"
        onnx.save(model, source)
        quant_pre_process(source, target, skip_symbolic_shape=True)
        return onnx.load(target)


def quantize_static(
    ready: onnx.ModelProto, calls: Sequence[Call], settings: Settings, *, reduce_range: bool
) -> onnx.ModelProto:
    """Q/DQ, unsigned activations per tensor, signed weights per channel.

    Args:
        ready: what `preprocessed` gives; left as it was.
        calls: calibration calls by input name.
        settings: of these the ranges.
        reduce_range: 7-bit weights.
    """
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.quantize import save_tensors_data

    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        source, ranges, target = (Path(folder) / name for name in ("in.onnx", "ranges", "out.onnx"))
        onnx.save(ready, source)
        found, method = ranges_of(source, calls, settings, Path(folder) / "observed.onnx")
        save_tensors_data(found, ranges)
        ort.quantize_static(
            source,
            target,
            None,
            quant_format=ort.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in ready.graph.node if node.op_type in LEFT_OUT],
            calibrate_method=method,
            calibration_cache_path=ranges,
            # A layer that is put back to float needs the activation that rounding would make superfluous.
            extra_options={"QDQKeepRemovableActivations": True},
        )
        return onnx.load(target)


def ranges_of(source: Path, calls: Sequence[Call], settings: Settings, observed: Path) -> tuple[Any, Any]:
    """The range of every value, and onnxruntime's name of the method."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, calls: Sequence[Call]) -> None:
            self.calls: Iterator[Call] = iter(calls)

        def get_next(self) -> Call | None:
            return next(self.calls, None)

    method = {
        "min-max": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[settings.ranges]
    calibrator = create_calibrator(
        source,
        augmented_model_path=observed,
        calibrate_method=method,
        extra_options={"symmetric": False, "percentile": PERCENTILE},
    )
    for start in range(0, len(calls), CHUNK):
        calibrator.collect_data(Reader(calls[start : start + CHUNK]))
    return calibrator.compute_data(), method


def quantize_dynamic(model: onnx.ModelProto, *, reduce_range: bool) -> onnx.ModelProto:
    """Dynamic int8 for matrix products and LSTMs; needs no calibration.

    Convolutions stay float: onnxruntime's ConvInteger is up to 27 times slower than its float convolution.

    Args:
        model: float graph, left as it was.
        reduce_range: 7-bit weights.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as ort_dynamic

    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(transpose_gemms(model), source)
        ort_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm", "LSTM"],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(target)
