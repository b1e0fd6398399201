"""The recipes worth trying for one task on one target, mildest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx

from edgekit.compress.distill import Distill
from edgekit.compress.half import Half
from edgekit.compress.int8_routes import routes_for
from edgekit.compress.prune import Prune
from edgekit.compress.quantize import Quantize
from edgekit.cost import Cost
from edgekit.graph.layers import Layer
from edgekit.graph.prepare import graphs, is_quantized
from edgekit.plan.cost_model import predict
from edgekit.plan.recipe import Recipe, Step
from edgekit.target import Target
from edgekit.task.record import Task

KEPT_MACS = (0.7, 0.5, 0.35)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe with a name that people can say.

    Attributes:
        macs: the share of multiply-accumulates that it keeps.
        precision: what the heavy layers compute in; None where the network's own precision stays.
    """

    name: str
    recipe: Recipe
    macs: float = 1.0
    precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What task and network allow.

    Attributes:
        quantized: the network computes on integers already and is left alone.
        quantizable: at least one int8 route fits the graph.
        prunable: there is training data, and a torch module whose channels can be removed.
        why_not: one line for each kind of step that is not offered.
        precision: the type of most of the network's weights.
    """

    quantized: bool
    quantizable: bool
    prunable: bool
    why_not: tuple[str, ...] = ()
    precision: str = "float32"


def offer_for(task: Task, graph: onnx.ModelProto) -> Offer:
    """What can be done to this network with the data that there is.

    Args:
        task: its data and its network.
        graph: the float graph of the network.
    """
    if is_quantized(graph):
        why = "the network is quantized already and is left alone: only its conversion is tried"
        return Offer(quantized=True, quantizable=False, prunable=False, why_not=(why,))
    precision = _weight_type(graph)
    routes, reason = routes_for(graph, calibrated=task.calibration is not None)
    if precision != "float32":
        routes, reason = [], f"it starts from float32 weights, and these are {precision}"
    why_not = [f"int8 is {'limited' if routes else 'not offered'}: {reason}"] if reason else []
    cannot_prune = _why_not_prune(task)
    if cannot_prune:
        why_not.append(f"pruning is not offered: {cannot_prune}")
    return Offer(
        quantized=False,
        quantizable=bool(routes),
        prunable=not cannot_prune,
        why_not=tuple(why_not),
        precision=precision,
    )


def _weight_type(model: onnx.ModelProto) -> str:
    """The type of most weights, by elements; float32 where there are none."""
    found: Counter[str] = Counter({"float32": 0})
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            if dtype.name in ("float32", "float16", "float64", "bfloat16"):
                found[dtype.name] += prod(tensor.dims)
    return found.most_common(1)[0][0]


def _why_not_prune(task: Task) -> str:
    import torch

    if isinstance(task.model, onnx.ModelProto):
        return "an ONNX file cannot be fine-tuned, give the torch network"
    if isinstance(task.model, torch.jit.ScriptModule | torch.fx.GraphModule):
        return "the forward of an exported network is frozen, give the code that builds it"
    return "" if task.training else "there is no training data to recover with"


def candidates(target: Target, offer: Offer) -> list[Candidate]:
    """The network as it is, float16 where the profile gains, int8, and ever narrower ones in both.

    A narrow network may be slower in int8 than in float: small layers do not pay for the conversions.
    """
    if offer.quantized or offer.precision != "float32":
        return [Candidate(name="as given" if offer.quantized else offer.precision, recipe=Recipe())]
    found = [_candidate((), "float32")]
    if target.profile.fp16_gain > 1:
        found.append(_candidate((Half(),), "float16"))
    if offer.quantizable:
        found.append(_candidate((Quantize(),), "int8"))
    for share in KEPT_MACS if offer.prunable else ():
        narrow = (Prune(macs=share), Distill())
        found.append(_candidate(narrow, "float32", share))
        if offer.quantizable:
            found.append(_candidate((*narrow, Quantize()), "int8", share))
    return found


def _candidate(steps: tuple[Step, ...], precision: str, macs: float = 1.0) -> Candidate:
    recipe = Recipe(steps=steps)
    return Candidate(name=recipe_name(recipe), recipe=recipe, macs=macs, precision=precision)


def given_recipe(recipe: Recipe, unchanged: Candidate) -> Candidate:
    """The candidate of a recipe that the user gave.

    Args:
        recipe: with no steps it is the network as it is.
        unchanged: that network's own candidate, which has its name.
    """
    return Candidate(name=recipe_name(recipe) if recipe.steps else unchanged.name, recipe=recipe)


def recipe_name(recipe: Recipe) -> str:
    """What people call a recipe: `pruned to 50% + int8`; distillation goes without saying."""
    words = {"half": "float16", "quantize": "int8"}
    named = [f"pruned to {s.macs:.0%}" if s.step == "prune" else words.get(s.step, "") for s in recipe.steps]
    return " + ".join(filter(None, named)) or ("distilled" if recipe.steps else "float32")


def foresee(candidate: Candidate, layers: Sequence[Layer], target: Target) -> Cost:
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
            precision=candidate.precision if candidate.precision and layer.macs else layer.precision,
        )
        for layer in layers
    ]
    threads = candidate.recipe.threads or target.threads
    return predict(scaled, target.profile, runtime=candidate.recipe.runtime, threads=threads)
