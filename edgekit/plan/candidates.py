"""The recipes worth trying for one task on one target, mildest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgekit.compress.distill import Distill
from edgekit.compress.half import Half
from edgekit.compress.prune import Prune
from edgekit.compress.quantize import Quantize
from edgekit.cost import Cost
from edgekit.graph.layers import Layer
from edgekit.plan.cost_model import predict
from edgekit.plan.recipe import Recipe, Step
from edgekit.target import Target

KEPT_MACS = (0.7, 0.5, 0.35)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe with a name that people can say.

    Attributes:
        macs: the share of multiply-accumulates that it keeps.
        precision: what the heavy layers compute in.
    """

    name: str
    recipe: Recipe
    macs: float = 1.0
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the task allows.

    Attributes:
        calibrated: there is calibration data.
        trainable: there is training data and a torch module whose channels can be removed.
        quantizable: at least one int8 route fits the graph.
        why_not: one line for each kind of step that is not offered.
    """

    calibrated: bool
    trainable: bool
    quantizable: bool
    why_not: tuple[str, ...] = ()


def candidates(target: Target, offer: Offer) -> list[Candidate]:
    """Float first, then float16 where the profile gains by it, int8, and ever narrower networks in int8."""
    found = [Candidate(name="float32", recipe=Recipe())]
    if target.profile.fp16_gain > 1:
        found.append(Candidate(name="float16", recipe=Recipe(steps=(Half(),)), precision="float16"))
    last: tuple[Step, ...] = (Quantize(),) if offer.quantizable else ()
    precision = "int8" if offer.quantizable else "float32"
    if offer.quantizable:
        found.append(Candidate(name="int8", recipe=Recipe(steps=last), precision=precision))
    for share in KEPT_MACS if offer.trainable else ():
        steps = (Prune(macs=share), Distill(), *last)
        name = f"pruned to {share:.0%}" + (" + int8" if last else "")
        found.append(Candidate(name=name, recipe=Recipe(steps=steps), macs=share, precision=precision))
    return found


def foresee(candidate: Candidate, layers: Sequence[Layer], target: Target, threads: int) -> Cost:
    """Latency and size of a candidate before anything is built, from the float network's layers.

    Pruning to a share s of the work is taken as the factor s on work and weights and sqrt(s) on activations.
    """
    share = candidate.macs
    scaled = [
        replace(
            layer,
            macs=int(layer.macs * share),
            params=int(layer.params * share),
            input_elements=int(layer.input_elements * share**0.5),
            output_elements=int(layer.output_elements * share**0.5),
            precision=candidate.precision if layer.macs else layer.precision,
        )
        for layer in layers
    ]
    return predict(scaled, target.profile, runtime="onnxruntime", threads=threads)
