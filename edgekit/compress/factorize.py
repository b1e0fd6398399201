"""The step `factorize`: layers as products of smaller ones, where that makes them faster."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.compress.context import Context
from edgekit.compress.low_rank.layer import is_decomposable
from edgekit.compress.low_rank.observe import Seen, observe
from edgekit.compress.low_rank.options import Method, Option, Wishes, at_error, at_share, by_rule, fitting
from edgekit.compress.low_rank.work import layers_of
from edgekit.compress.totals import params_of, total_work
from edgekit.errors import BadInput, count
from edgekit.graph.layers import Layer
from edgekit.result import Change, StepReport
from edgekit.task.call import call_module
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

LEAST_GAIN = 0.9  # of its own predicted time a layer must come down to before it is worth an approximation
SHARES = (
    0.125,
    0.1875,
    0.25,
    0.375,
    0.5,
)  # that are compared under the rule "cost"; above, nothing is gained
AUTO: tuple[Method, ...] = ("svd", "spatial-svd", "tucker", "cp")


class Factorize(BaseModel):
    """Low-rank factorization of linear layers and convolutions, each only where it is faster on the board.

    Methods: `svd` over channels (Zhang et al. 2015) and over places (`spatial-svd`, Jaderberg et al. 2014),
    `tucker` (Tucker-2, Kim et al. 2016), `cp` (Lebedev et al. 2015), `hlrtf` (low_rank/hierarchical.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["factorize"] = "factorize"
    method: Literal["auto", "svd", "spatial-svd", "tucker", "cp", "hlrtf"] = Field(
        default="auto",
        description="auto takes for each layer the cheapest at the error that svd has by the rule",
    )
    rank: Literal["energy", "nuclear", "ratio", "vbmf", "cost"] = Field(
        default="energy",
        description="the rule for ranks: share of the squared singular values, of their sum, of the full "
        "rank; analytic; or the largest saving of predicted time for the error",
    )
    amount: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="the share that the rule keeps; of cost, the energy kept on average",
    )
    levels: tuple[float, ...] = Field(
        default=(0.5, 0.5, 0.1),
        min_length=1,
        max_length=3,
        description="of hlrtf: share of the full rank over channels, over places, of the residual",
    )
    min_rank: int = Field(default=4, ge=1, description="ranks are not smaller")
    round_to: int | None = Field(
        default=None, ge=1, description="ranks are a multiple of this; the profile's width when left out"
    )
    skip_small: int = Field(
        default=16, ge=1, description="layers with fewer input or output channels are left alone"
    )
    preserve_first_last: bool = Field(default=True, description="leave the first and the last layer alone")
    whiten: bool = Field(
        default=True, description="keep the outputs on the calibration data, not the weights; with data only"
    )
    gain: Literal["latency", "size"] = Field(
        default="latency", description="what a layer must gain to be taken apart: predicted time, or weights"
    )

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """A copy in which the layers that gain are factorized; fine-tune it with `distill`.

        Raises:
            BadInput: the forward of the network is frozen.
        """
        import torch

        if isinstance(model, torch.jit.ScriptModule | torch.fx.GraphModule):
            raise BadInput(
                "an exported network cannot be factorized, its forward is frozen",
                where=f"factorize {task.name}",
                todo="give the task file or the factory that builds the network",
            )
        network = copy.deepcopy(model).eval()
        names, left = self._candidates(network)
        seen = observe(network, names, context.calls, context.example)
        wishes = Wishes(
            least=self.min_rank,
            multiple=self.round_to or context.round_to,
            levels=self.levels,
            whiten=self.whiten,
        )
        layers = {name: network.get_submodule(name) for name in names if name in seen}
        left |= dict.fromkeys(set(names) - set(seen), "not called through its module")
        chosen = (
            self._by_cost(layers, seen, wishes, context)
            if self.rank == "cost"
            else self._by_rule(layers, seen, wishes, context)
        )
        kept = {name: one for name, one in chosen.items() if _replace(network, name, one.module, context)}
        changes = [_change(name, layers[name], one, seen[name]) for name, one in kept.items()]
        report = self._report(model, network, context, changes, len(layers), len(chosen))
        read = [
            f"{name} is read by more than its own call and is as it was"
            for name in chosen
            if name not in kept
        ]
        context.reports.append(replace(report, notes=(*report.notes, *read, *_why(left))))
        return network

    def _candidates(self, network: torch.nn.Module) -> tuple[list[str], dict[str, str]]:
        """The layers that may be taken apart, and of the other heavy ones why not, by name."""
        heavy = [name for name, layer in network.named_modules() if _is_heavy(layer)]
        shared, left = _shared(network), {}
        for number, name in enumerate(heavy):
            layer: Any = network.get_submodule(name)
            if self.preserve_first_last and number in (0, len(heavy) - 1):
                left[name] = "the first or the last layer"
            elif name in shared:
                left[name] = "shared with another"
            elif not is_decomposable(layer):
                left[name] = "grouped, of another kind, or of a class of its own"
            elif min(layer.weight.shape[:2]) < self.skip_small:
                left[name] = f"narrower than {self.skip_small} channels"
        return [name for name in heavy if name not in left], left

    def _methods(self, layer: Any) -> list[Method]:
        return fitting(layer, AUTO if self.method == "auto" else (self.method,))

    def _by_rule(
        self, layers: Mapping[str, Any], seen: Mapping[str, Seen], wishes: Wishes, context: Context
    ) -> dict[str, Option]:
        chosen = {}
        for number, (name, layer) in enumerate(layers.items(), start=1):
            context.detail(f"layer {number} of {len(layers)}: {name}")
            methods = self._methods(layer)
            if not methods:
                continue
            found = [self._by_rule_one(layer, methods[0], seen[name], wishes)]
            found += [at_error(layer, method, found[0].error, seen[name], wishes) for method in methods[1:]]
            best = min(found, key=lambda one: self._price(one.module, seen[name], context))
            if self._gains(layer, best, seen[name], context):
                chosen[name] = best
        return chosen

    def _by_rule_one(self, layer: Any, method: Method, seen: Seen, wishes: Wishes) -> Option:
        if self.rank == "cost":
            raise ValueError("cost compares all layers at once")
        return by_rule(layer, method, self.rank, self.amount, seen, wishes)

    def _by_cost(
        self, layers: Mapping[str, Any], seen: Mapping[str, Seen], wishes: Wishes, context: Context
    ) -> dict[str, Option]:
        """The options that save most for the squared error that they cost, until that is spent.

        For a price of error, each layer's best option is the one of most saving less price times error; the
        price is the lowest at which the errors stay inside what `amount` allows (Lagrange, by bisection).
        """
        options: dict[str, list[tuple[Option, float]]] = {}
        for number, (name, layer) in enumerate(layers.items(), start=1):
            context.detail(f"layer {number} of {len(layers)}: {name}")
            now = self._price(layer, seen[name], context)
            made = [
                at_share(layer, method, share, seen[name], wishes)
                for method in self._methods(layer)
                for share in SHARES
            ]
            options[name] = [
                (one, now - self._price(one.module, seen[name], context))
                for one in made
                if self._gains(layer, one, seen[name], context)
            ]
        return spend(options, (1 - self.amount) * len(layers))

    def _price(self, module: torch.nn.Module, seen: Seen, context: Context) -> float:
        """Predicted milliseconds, or multiply-accumulates where nothing foretells them; weights for size."""
        work = layers_of(module, seen.samples[0])
        if self.gain == "size":
            return float(sum(layer.params for layer in work))
        predicted = context.layer_ms(work)
        return float(sum(layer.macs for layer in work)) if predicted is None else predicted

    def _gains(self, layer: Any, one: Option, seen: Seen, context: Context) -> bool:
        return self._price(one.module, seen, context) <= LEAST_GAIN * self._price(layer, seen, context)

    def _report(
        self,
        before: torch.nn.Module,
        after: torch.nn.Module,
        context: Context,
        changes: Sequence[Change],
        looked_at: int,
        gaining: int,
    ) -> StepReport:
        left = looked_at - gaining
        what = "predicted time" if self.gain == "latency" else "number of weights"
        notes = (
            [f"{left} of {looked_at} layers would not gain in {what} and are as they were"] if left else []
        )
        if not context.calls:
            notes.append("no calibration data: errors are those of the weights")
        return StepReport(
            step=self.step,
            params=(params_of(before), params_of(after)),
            macs=(total_work(before, context.example), total_work(after, context.example)),
            changes=tuple(changes),
            notes=tuple(notes),
        )


def spend(options: Mapping[str, Sequence[tuple[Option, float]]], allowed: float) -> dict[str, Option]:
    """For each layer the option that is worth its squared error, the sum of which stays within `allowed`.

    Args:
        options: for each layer, options with what each saves.
        allowed: sum of squared relative errors.
    """

    def at(price: float) -> dict[str, Option]:
        chosen = {}
        for name, ones in options.items():
            best = max(ones, key=lambda pair: pair[1] - price * pair[0].error ** 2, default=None)
            if best is not None and best[1] - price * best[0].error ** 2 > 0:
                chosen[name] = best[0]
        return chosen

    def error(chosen: Mapping[str, Option]) -> float:
        return sum(one.error**2 for one in chosen.values())

    if error(at(0.0)) <= allowed:
        return at(0.0)
    low, high = 0.0, 1.0
    while error(at(high)) > allowed:
        high *= 4
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if error(at(middle)) > allowed else (low, middle)
    return at(high)


def _replace(network: torch.nn.Module, name: str, module: torch.nn.Module, context: Context) -> bool:
    """Put `module` into the network; whether that runs. Some forwards read a layer's weight themselves."""
    parent, _, own = name.rpartition(".")
    holder, layer = network.get_submodule(parent), network.get_submodule(name)
    setattr(holder, own, module)
    try:
        call_module(network, tuple(context.example.values()))
    except Exception:  # noqa: BLE001 - whatever its forward raises, the layer stays
        setattr(holder, own, layer)
        return False
    return True


def _change(name: str, layer: Any, one: Option, seen: Seen) -> Change:
    before, after = layers_of(layer, seen.samples[0]), layers_of(one.module, seen.samples[0])
    full = " x ".join(map(str, layer.weight.shape))
    return Change(
        layer=name,
        what=f"{one.method}, rank {' and '.join(map(str, one.ranks))} of {full}",
        params=(_sum(before, "params"), _sum(after, "params")),
        macs=(_sum(before, "macs"), _sum(after, "macs")),
        error=one.error,
    )


def _sum(layers: Sequence[Layer], field: str) -> int:
    return sum(getattr(layer, field) for layer in layers)


def _why(left: Mapping[str, str]) -> list[str]:
    """One sentence for each reason why layers were not looked at."""
    counted = Counter(left.values())
    return [f"{count(number, 'layer')} left alone: {reason}" for reason, number in counted.items()]


def _is_heavy(layer: torch.nn.Module) -> bool:
    import torch

    return isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d | torch.nn.Linear)


def _shared(network: torch.nn.Module) -> set[str]:
    """Layers that stand in the network under several names, or share their weight: left alone."""
    by_weight: dict[int, set[str]] = {}
    for name, layer in network.named_modules(remove_duplicate=False):
        weight = getattr(layer, "weight", None)
        if weight is not None:
            by_weight.setdefault(id(weight), set()).add(name)
    return {name for names in by_weight.values() if len(names) > 1 for name in names}
