"""Weights in int8 or int4 by NNCF's OpenVINO backend; activations stay float, or are rounded as they come."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.artifact import Artifact
from edgekit.compress.context import Context
from edgekit.compress.quantization.limits import excess

if TYPE_CHECKING:
    import openvino

TENTHS = 10  # the share of int4 is found to a tenth of the weights


def compress_int8(model: openvino.Model) -> openvino.Model:
    """The weights of convolutions, matrix products and embeddings in int8, a scale and zero point a channel.

    Without zero points a MobileNetV2's features come to 10 dB of the float ones instead of 16.

    Args:
        model: in float; it is changed.
    """
    import nncf

    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)


def compress_int4(
    model: openvino.Model, calls: Sequence[Mapping[str, np.ndarray]], *, group_size: int, share: float
) -> openvino.Model:
    """The weights of matrix products in int4, one scale a group; what is more sensitive in int8.

    Args:
        model: in float; it is changed.
        calls: calibration calls, by which the weights are rounded (GPTQ, Frantar et al. 2022) and sensitivity
            is found; without them both go by the weights alone. On a small ViT that is 37 dB against 26, and
            NNCF's scale estimation 21.
        group_size: inputs of a product that share a scale; fewer, by a power of two, where it does not divide
            the number of inputs.
        share: of the weights of matrix products that shall be int4, 0 to 1. NNCF leaves those in int8 whose
            inputs vary most, weighed by what rounding does to the weights.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

    if not share:
        return compress_int8(model)
    more: dict[str, Any] = {}
    if calls:
        data = nncf.Dataset([dict(call) for call in calls])
        more = {"dataset": data, "subset_size": len(calls), "gptq": True}
    return nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        ratio=share,
        group_size=group_size,
        all_layers=True,
        backup_mode=nncf.BackupMode.INT8_ASYM,
        advanced_parameters=AdvancedCompressionParameters(
            group_size_fallback_mode=GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=16
        ),
        **more,
    )


def share_of_int4(make: Callable[[float], Artifact], context: Context) -> float:
    """How much shall be int4: no more than a size limit asks for, else as much as the quality limits allow.

    Args:
        make: the artifact with this share of int4.
        context: its limits; with none everything is int4.
    """

    def fits(tenths: int) -> bool:
        return context.most_bytes is not None and make(tenths / TENTHS).size_bytes <= context.most_bytes

    def loses_too_much(tenths: int) -> bool:
        return excess(context.measure(make(tenths / TENTHS).open()), context) > 0

    if context.most_bytes is not None:
        return min(TENTHS, bisect_left(range(TENTHS + 1), True, key=fits)) / TENTHS
    if context.max_drop is None and context.max_class_drop is None:
        return 1.0
    return max(0, bisect_left(range(TENTHS + 1), True, key=loses_too_much) - 1) / TENTHS
