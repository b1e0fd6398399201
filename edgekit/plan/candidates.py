"""The recipes worth trying for one task on one target, mildest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import onnx

from edgekit.artifact import RuntimeName
from edgekit.compress.depth import Depth
from edgekit.compress.distill import Distill
from edgekit.compress.factorize import Factorize
from edgekit.compress.half import Half
from edgekit.compress.prune import Prune
from edgekit.compress.quantization.way import Way
from edgekit.compress.quantization.ways import ways_of
from edgekit.compress.quantize import Quantize
from edgekit.compress.sparsify import Sparsify
from edgekit.cost import Cost
from edgekit.graph.layers import Layer
from edgekit.graph.prepare import graphs, is_quantized
from edgekit.plan.cost_model import predict
from edgekit.plan.recipe import Recipe, Step
from edgekit.target import Profile, Target
from edgekit.task.record import Task

KEPT_MACS = (0.7, 0.5, 0.35)
TACIT = {"distill": "distilled", "finetune": "fine-tuned", "fuse": "fused"}  # named where nothing else is


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe with a name that people can say.

    Attributes:
        macs: the share of multiply-accumulates that it keeps.
        precision: what the heavy layers compute in; None where the network's own precision stays.
        mends: the limit that it is for: worth trying only when a milder candidate misses that one.
    """

    name: str
    recipe: Recipe
    macs: float = 1.0
    precision: str | None = None
    mends: str | None = None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What task and network allow.

    Attributes:
        unchanged: the network as it is.
        quantized: the network computes on integers already and is left alone.
        methods: of quantization that fit the network, the runtime and the data.
        prunable: there is training data, and a torch module whose channels can be removed.
        why_not: one line for each kind of step that is not offered.
        precision: the type of most of the network's weights.
    """

    unchanged: Candidate
    quantized: bool
    methods: frozenset[str]
    prunable: bool
    why_not: tuple[str, ...] = ()
    precision: str = "float32"


def offer_for(task: Task, graph: onnx.ModelProto, ways: Sequence[Way], reasons: Sequence[str]) -> Offer:
    """What can be done to this network with the data that there is.

    Args:
        task: its data and its network.
        graph: the float graph of the network.
        ways: of quantizing that fit.
        reasons: why others do not.
    """
    if is_quantized(graph):
        why = "the network is quantized already and is left alone: only its conversion is tried"
        return Offer(
            unchanged=unchanged(graph),
            quantized=True,
            methods=frozenset(),
            prunable=False,
            why_not=(why,),
        )
    precision = _weight_type(graph)
    methods = frozenset(way.method for way in ways if task.training or way.method != "qat")
    why_not = []
    if precision != "float32":
        methods = frozenset()
        why_not.append(f"int8 is not offered: it starts from float32 weights, and these are {precision}")
    elif not methods:
        why_not.append(f"int8 is not offered: {'; '.join(reasons)}")
    elif not task.calibration:
        why_not.append("int8 is limited: static quantization needs calibration data")
    cannot_prune = _why_not_prune(task)
    if cannot_prune:
        why_not.append(f"pruning is not offered: {cannot_prune}")
    return Offer(
        unchanged=unchanged(graph),
        quantized=False,
        methods=methods,
        prunable=not cannot_prune,
        why_not=tuple(why_not),
        precision=precision,
    )


def unchanged(graph: onnx.ModelProto) -> Candidate:
    """The candidate of the network as it is, named for the precision it has."""
    name = "as given" if is_quantized(graph) else _weight_type(graph)
    return Candidate(name=name, recipe=Recipe())


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


def candidates(target: Target, runtime: RuntimeName, offer: Offer) -> list[Candidate]:
    """The network as it is, float16 where the profile gains, int8, and ever narrower ones in both.

    A narrow network may be slower in int8 than in float: small layers do not pay for the conversions. Where
    int8 alone loses too much, the layers that hurt go back to float, and then it is fine-tuned.
    """
    if offer.quantized or offer.precision != "float32":
        return [offer.unchanged]
    found = [_candidate((), "float32")]
    if (target.profile.gain(runtime, "float16") or 1) > 1:
        found.append(_candidate((Half(),), "float16"))
    by_itself = offer.methods - {"qat"}
    if by_itself:
        found.append(_candidate((Quantize(),), "int8"))
    if "static" in offer.methods:
        reverted = _candidate((Quantize(method="static", revert=True),), "int8")
        found.append(replace(reverted, mends="drop"))
    if "qat" in offer.methods:
        found.append(replace(_candidate((Quantize(method="qat"),), "int8"), mends="drop"))
    for share in KEPT_MACS if offer.prunable else ():
        narrow = (Prune(macs=share), Distill())
        found.append(_candidate(narrow, "float32", share))
        if by_itself:
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
    """What people call a recipe: `pruned to 50% + int8`; training and fusing go without saying."""
    said = filter(None, map(_step_name, recipe.steps))
    return " + ".join(said) or (TACIT[recipe.steps[-1].step] if recipe.steps else "float32")


def _step_name(step: Step) -> str:
    if isinstance(step, Factorize):
        return "factorized"
    if isinstance(step, Depth):
        return f"{step.blocks} fewer blocks" if step.blocks else f"shortened to {step.macs:.0%}"
    if isinstance(step, Prune):
        return f"pruned to {step.macs:.0%}"
    if isinstance(step, Sparsify):
        return "sparse"
    if isinstance(step, Half):
        return step.precision
    if not isinstance(step, Quantize):
        return ""
    if step.method == "weight-only":
        return f"{step.weights} weights"
    words = [step.weights if step.activations == "int8" else f"{step.weights} x {step.activations}"]
    words += [step.method] if step.method in ("dynamic", "qat") else []
    words += ["accuracy-controlled"] if step.revert else []
    return ", ".join(words)


def precision_of(recipe: Mapping[str, Any], runtime: RuntimeName) -> str:
    """What the heavy layers of an artifact compute in.

    Args:
        recipe: as plain data, its route chosen.
        runtime: that the artifact is for.
    """
    for step in recipe.get("steps", ()):
        if step["step"] == "half":
            return str(step.get("precision", "float16"))
        if step["step"] == "quantize":
            methods = {way.name: way.method for way in ways_of(runtime)}
            method = methods.get(step.get("route", ""), step.get("method", "static"))
            return "float32" if method == "weight-only" else "int8"
    return "float32"


def foresee(
    candidate: Candidate, layers: Sequence[Layer], profile: Profile, *, runtime: RuntimeName, threads: int
) -> Cost:
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
    return predict(scaled, profile, runtime=runtime, threads=candidate.recipe.threads or threads)
