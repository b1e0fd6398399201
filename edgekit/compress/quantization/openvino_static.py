"""Static int8 by NNCF's OpenVINO backend, all of it or as far as a quality limit allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.compress.context import Context
from edgekit.compress.quantization.limits import excess
from edgekit.compress.quantization.settings import Settings
from edgekit.result import Quality

if TYPE_CHECKING:
    import openvino
    from nncf import AdvancedQuantizationParameters

Call = Mapping[str, np.ndarray]
OUTLIERS = 1e-4  # the share of a call's values below, and above, a percentile range


def quantize(
    model: openvino.Model,
    calls: Sequence[Call],
    settings: Settings,
    *,
    transformer: bool,
    reduce_range: bool,
) -> openvino.Model:
    """The model with weights and activations rounded to 8 bits, weights stored so.

    Args:
        model: in float, left as it was.
        calls: calibration calls by input name.
        settings: of these the ranges, the bias correction and SmoothQuant.
        transformer: whether NNCF shall look for attention blocks, and smooth activations before them.
        reduce_range: 7-bit weights.
    """
    import nncf

    return nncf.quantize(
        model,
        nncf.Dataset([dict(call) for call in calls]),
        subset_size=len(calls),
        fast_bias_correction=settings.bias_correction != "full",
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        advanced_parameters=_parameters(settings, reduce_range=reduce_range),
    )


def quantize_within(
    model: openvino.Model,
    calls: Sequence[Call],
    settings: Settings,
    context: Context,
    *,
    transformer: bool,
) -> openvino.Model:
    """The same with as many layers put back to float as the quality limits of the context need.

    NNCF ranks the layers by how far the outputs on the calibration calls come back to those of the float
    network when one of them is put back, then puts back the worst first and measures after each.
    """
    import nncf

    def validate(compiled: Any, data: Iterable[Call]) -> tuple[float, list[list[np.ndarray]]]:
        def run(call: Call) -> list[np.ndarray]:
            return list(compiled(dict(call)).values())

        return -excess(context.measure(run), context), [run(call) for call in data]

    data = nncf.Dataset([dict(call) for call in calls])
    return nncf.quantize_with_accuracy_control(
        model,
        data,
        data,
        validate,
        # The float network stays below each limit by the whole limit, so none may be passed by then.
        max_drop=-excess(Quality(kind="", score=None, drop=0.0, class_drop=0.0), context),
        drop_type=nncf.DropType.ABSOLUTE,
        subset_size=len(calls),
        fast_bias_correction=settings.bias_correction != "full",
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        advanced_quantization_parameters=_parameters(settings, reduce_range=context.reduce_range),
    )


def _parameters(settings: Settings, *, reduce_range: bool) -> AdvancedQuantizationParameters:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters, OverflowFix

    more: dict[str, Any] = {}
    if settings.smooth_quant is not None:
        alpha = settings.smooth_quant or -1  # which NNCF takes for: none
        more["smooth_quant_alphas"] = AdvancedSmoothQuantParameters(convolution=-1, matmul=alpha)
    return nncf.AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE if reduce_range else OverflowFix.DISABLE,
        disable_bias_correction=settings.bias_correction == "none",
        activations_range_estimator_params=_ranges(settings.ranges),
        **more,
    )


def _ranges(kind: str) -> Any:
    """How ranges come out of the calibration calls: the widest of all calls, or the one that rounds best.

    NNCF's own default is the mean over the calls of each one's largest value, which cuts off whatever is
    larger: a ResNet-20 then comes to 27 dB of its float outputs instead of 42. Its histogram looks for the
    range with the least rounding error, not with the least Kullback-Leibler divergence.
    """
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        RangeEstimatorParametersSet,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    if kind == "min-max":
        return RangeEstimatorParametersSet.MINMAX
    if kind == "entropy":
        return RangeEstimatorParametersSet.HISTOGRAM
    low, high = (
        StatisticsCollectorParameters(
            statistics_type=StatisticsType.QUANTILE, aggregator_type=widest, quantile_outlier_prob=OUTLIERS
        )
        for widest in (AggregatorType.MIN, AggregatorType.MAX)
    )
    return RangeEstimatorParameters(min=low, max=high)
