"""The ways to an int8 ONNX graph: nncf, onnxruntime static, onnxruntime dynamic.

None is best everywhere. On an ImageNet MobileNetV2 nncf's defaults are five times slower than float and
onnxruntime's dynamic route ten times; on a transformer the dynamic route wins. So each is tried.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgekit.graph.fusion import use_uint8_activations
from edgekit.graph.prepare import graphs
from edgekit.graph.rewrite import join_inputs, stand_off_inputs, transpose_gemms

Call = Mapping[str, np.ndarray]


def quantize_nncf(model: onnx.ModelProto, calls: Sequence[Call], *, reduce_range: bool) -> onnx.ModelProto:
    """Static int8 by NNCF's ONNX backend, with full bias correction where NNCF manages it.

    Activations are quantized per tensor and unsigned. With NNCF's defaults (per channel before depthwise
    convolutions, signed after linear bottlenecks) onnxruntime fuses 13 of a MobileNetV2's 52 convolutions.

    Args:
        model: float graph, left as it was.
        calls: calibration calls by input name.
        reduce_range: 7-bit weights.
    """
    os.environ.setdefault("NNCF_CI", "1")  # NNCF then sends no usage statistics
    import nncf
    from nncf.quantization.advanced_parameters import OverflowFix, QuantizationParameters

    operators = {node.op_type for node in model.graph.node}

    def quantize(*, fast_bias_correction: bool) -> onnx.ModelProto:
        quantized: onnx.ModelProto = nncf.quantize(
            stand_off_inputs(model),
            nncf.Dataset([dict(call) for call in calls]),
            subset_size=len(calls),
            fast_bias_correction=fast_bias_correction,
            model_type=nncf.ModelType.TRANSFORMER if {"Softmax", "MatMul"} <= operators else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_quantization_params=QuantizationParameters(per_channel=False),
                overflow_fix=OverflowFix.ENABLE if reduce_range else OverflowFix.DISABLE,
            ),
        )
        return use_uint8_activations(join_inputs(quantized))

    try:
        return quantize(fast_bias_correction=False)
    except Exception:  # noqa: BLE001 - of several kinds, nncf's and onnxruntime's; the second try may raise
        # nncf 3.4 cuts subgraphs that lack an input out of residual blocks with a convolved shortcut.
        return quantize(fast_bias_correction=True)


def quantize_static(model: onnx.ModelProto, calls: Sequence[Call], *, reduce_range: bool) -> onnx.ModelProto:
    """Static int8 by onnxruntime: Q/DQ, unsigned activations, signed weights per channel, min-max ranges.

    Args:
        model: float graph, left as it was.
        calls: calibration calls by input name.
        reduce_range: 7-bit weights.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.calls: Iterator[Call] = iter(calls)

        def get_next(self) -> Call | None:
            return next(self.calls, None)

    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        source, ready, target = (Path(folder) / name for name in ("in.onnx", "ready.onnx", "out.onnx"))
        onnx.save(model, source)
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)


def quantize_dynamic(model: onnx.ModelProto, calls: Sequence[Call], *, reduce_range: bool) -> onnx.ModelProto:
    """Dynamic int8 by onnxruntime for matrix products and LSTMs; needs no calibration.

    Convolutions stay float: onnxruntime's ConvInteger is up to 27 times slower than its float convolution.

    Args:
        model: float graph, left as it was.
        calls: not used; activation ranges are found at run time.
        reduce_range: 7-bit weights.
    """
    del calls
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


ROUTES = {"nncf": quantize_nncf, "ort-static": quantize_static, "ort-dynamic": quantize_dynamic}


def routes_for(model: onnx.ModelProto, *, calibrated: bool) -> tuple[list[str], str]:
    """The routes that can be tried on this graph, and why others are not; no route at all is possible too."""
    operators = {node.op_type for node in model.graph.node}
    inner = {node.op_type for graph in graphs(model.graph)[1:] for node in graph.node}
    heavy = operators & {"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU"}
    if not heavy:
        if inner & {"Conv", "MatMul", "Gemm", "LSTM", "GRU"}:
            return [], "the weights lie inside If or Loop bodies, where no quantizer reaches them"
        return [], "no convolution or matrix product to quantize"
    names = ["nncf", "ort-static"] if calibrated and heavy - {"LSTM", "GRU"} else []
    if operators & {"MatMul", "Gemm", "LSTM"}:
        names.append("ort-dynamic")
    if names:
        return names, "" if calibrated else "static routes need calibration data"
    return (
        [],
        "static int8 needs calibration data" if not calibrated else "only recurrent GRU layers are heavy",
    )
