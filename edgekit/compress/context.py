"""What a step may know besides the model and the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.artifact import Run
from edgekit.graph.layers import Layer
from edgekit.progress import Detail
from edgekit.result import Quality, Route, StepReport
from edgekit.target_profile import Profile

if TYPE_CHECKING:
    import torch

KeptWeights = Callable[
    [Mapping[str, Any], "torch.nn.Module", Callable[[], "torch.nn.Module"]], "torch.nn.Module"
]


@dataclass(kw_only=True)
class Context:
    """What a step may know, and where it says what it did.

    Attributes:
        example: the deployed call by input name.
        calls: calibration calls by input name; empty when there is no calibration data.
        measure: the quality on the task of what this function computes.
        max_drop: the quality that may be lost; None when no limit is named.
        max_class_drop: the same for the class that loses most.
        most_bytes: the size that the artifact may have; None when no limit is named.
        least_speedup: how many times faster than in float the latency limits ask for; None where float keeps
            them, or none is named.
        round_to: kept channels are rounded to a multiple of this, the profile's SIMD width.
        reduce_range: 7-bit weights, for x86 CPUs whose int8 kernels saturate (no VNNI).
        profile: of the board, where the steps are taken for one.
        folder: where graph steps write what they make; it outlives them.
        kept_weights: gives the network that its last argument makes by training; where the same key was
            trained before, the second argument with the weights of then.
        detail: shows how far a step is.
        routes: filled by steps that tried several ways.
        reports: filled by network steps with what they did.
        taught: filled by steps that train with what they gave; a later one may be taught by the last.
        unfinished: a folder where a training that is killed goes on from the last epoch; None keeps nothing.
        layer_ms: predicted milliseconds of layers one after the other on the board, in the precision that the
            recipe ends in; None where nothing foretells them.
    """

    example: Mapping[str, np.ndarray]
    calls: Sequence[Mapping[str, np.ndarray]]
    measure: Callable[[Run], Quality]
    max_drop: float | None
    max_class_drop: float | None = None
    most_bytes: float | None = None
    least_speedup: float | None = None
    round_to: int
    reduce_range: bool
    folder: Path
    profile: Profile | None = None
    kept_weights: KeptWeights = lambda _key, _untrained, train: train()
    detail: Detail = lambda _text: None
    routes: list[Route] = field(default_factory=list)
    reports: list[StepReport] = field(default_factory=list)
    taught: list[torch.nn.Module] = field(default_factory=list)
    unfinished: Path | None = None
    layer_ms: Callable[[Sequence[Layer]], float | None] = lambda _layers: None
