"""Static int8 by NNCF's ONNX backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgekit.compress.quantization.settings import Settings
from edgekit.graph.fusion import quantize_gemm_biases, use_uint8_activations
from edgekit.graph.rewrite import join_inputs, stand_off_inputs

if TYPE_CHECKING:
    from nncf import AdvancedQuantizationParameters

Call = Mapping[str, np.ndarray]
OUTLIERS = 1e-4  # the share of values below, and above, a percentile range


def quantize_nncf(
    model: onnx.ModelProto, calls: Sequence[Call], settings: Settings, *, reduce_range: bool
) -> onnx.ModelProto:
    """The Q/DQ graph, with full bias correction where NNCF manages it and it is asked for.

    Activations are quantized per tensor and unsigned. With NNCF's defaults (per channel before depthwise
    convolutions, signed after linear bottlenecks) onnxruntime fuses 13 of a MobileNetV2's 52 convolutions.

    With bias correction min-max ranges are NNCF's, the mean over the calls of their extremes; without it they
    are the extremes of all calls: 44 dB instead of 24 on a ResNet-20 for digits. (The correction makes up for
    what the former cut off, where it works: on a MobileNetV2 15 dB against 12.)

    Args:
        model: float graph, left as it was.
        calls: calibration calls by input name.
        settings: of these the ranges, the bias correction and SmoothQuant.
        reduce_range: 7-bit weights.
    """
    import nncf

    def quantize(*, fast: bool) -> onnx.ModelProto:
        quantized: onnx.ModelProto = nncf.quantize(
            stand_off_inputs(model),
            nncf.Dataset([dict(call) for call in calls]),
            subset_size=len(calls),
            fast_bias_correction=fast,
            model_type=nncf.ModelType.TRANSFORMER if is_transformer(model) else None,
            advanced_parameters=_parameters(settings, reduce_range=reduce_range),
        )
        return quantize_gemm_biases(use_uint8_activations(join_inputs(quantized)))

    if settings.bias_correction != "full":
        return quantize(fast=True)
    try:
        return quantize(fast=False)
    except Exception:  # noqa: BLE001 - of several kinds, nncf's and onnxruntime's; the second try may raise
        # nncf 3.4 cuts subgraphs that lack an input out of residual blocks with a convolved shortcut.
        return quantize(fast=True)


def is_transformer(model: onnx.ModelProto) -> bool:
    """Whether NNCF shall look for attention blocks in it."""
    return {"Softmax", "MatMul"} <= {node.op_type for node in model.graph.node}


def _parameters(settings: Settings, *, reduce_range: bool) -> AdvancedQuantizationParameters:
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedSmoothQuantParameters,
        OverflowFix,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    more: dict[str, Any] = {}
    if settings.ranges == "percentile":
        more["activations_range_estimator_params"] = _percentile()
    elif settings.bias_correction == "none":
        more["activations_range_estimator_params"] = RangeEstimatorParametersSet.MINMAX
    if settings.smooth_quant is not None:
        alpha = settings.smooth_quant or -1  # which NNCF takes for: none
        more["smooth_quant_alphas"] = AdvancedSmoothQuantParameters(convolution=-1, matmul=alpha)
    return nncf.AdvancedQuantizationParameters(
        activations_quantization_params=QuantizationParameters(per_channel=False),
        overflow_fix=OverflowFix.ENABLE if reduce_range else OverflowFix.DISABLE,
        disable_bias_correction=settings.bias_correction == "none",
        **more,
    )


def _percentile() -> Any:
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    end = StatisticsCollectorParameters(
        statistics_type=StatisticsType.QUANTILE,
        aggregator_type=AggregatorType.MEAN,
        quantile_outlier_prob=OUTLIERS,
    )
    return RangeEstimatorParameters(min=end, max=end)
