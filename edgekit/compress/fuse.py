"""The step `fuse`: batch norms become part of the layers before them."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgekit.compress.calls import spread
from edgekit.compress.context import Context
from edgekit.compress.fold import (
    Observed,
    fold,
    layer_types,
    norm_affine,
    norm_types,
    observe,
    probed_affine,
)
from edgekit.compress.pruning.prune_report import names_of
from edgekit.compress.totals import params_of, total_work
from edgekit.errors import BadInput
from edgekit.near import nearest
from edgekit.result import Change, StepReport
from edgekit.task.call import call_module
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

    Pair = tuple[str, str]

MOST_ERROR = 1e-5  # of the largest value of an output
CHECKED_CALLS = 16


class Fuse(BaseModel):
    """Folding of batch norms into convolutions, transposed convolutions and linear layers.

    Activations stay modules of their own, for a torch network cannot say more: the report counts those that
    follow a layer directly. onnxruntime computes a ReLU with its convolution, a GELU as one node. Training
    after this step has no batch norms any more: take it after `distill`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["fuse"] = "fuse"
    pairs: tuple[tuple[str, str], ...] = Field(
        default=(),
        description="more to fold, as (layer, module after it): any module that scales and shifts channels "
        "(a frozen norm, a layer scale)",
    )

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """A copy that computes the same within 1e-5 of its outputs' largest value, checked on real inputs.

        Raises:
            BadInput: the network is frozen, or a named pair cannot be folded.
        """
        import torch

        start = time.monotonic()
        if not isinstance(model, torch.nn.Module) or isinstance(model, torch.jit.ScriptModule):
            raise BadInput(
                "only a torch network whose modules are at hand can be fused, this one is frozen",
                where=f"fuse {task.name}",
                todo="give the task file or the factory that builds the network, or leave `fuse` out",
            )
        seen = observe(model, tuple(torch.from_numpy(array.copy()) for array in task.example))
        found, notes = _norm_pairs(model, seen)
        found += [pair for pair in self.pairs if pair not in found and _is_named_right(model, seen, pair)]
        check = _Check(model, seen, [dict(context.example), *spread(context.calls, CHECKED_CALLS)])
        kept, error = check.kept(found)
        network = _fused(model, seen, kept)
        notes += [
            f"{layer} with {norm} would change the outputs by more than {MOST_ERROR:g}: put back"
            for layer, norm in found
            if (layer, norm) not in kept
        ]
        if kept:
            notes.append(
                f"outputs change by {error:.1e} of their largest value, over {len(check.calls)} calls"
            )
        notes += _activations(seen)
        context.reports.append(
            StepReport(
                step=self.step,
                params=(params_of(model), params_of(network)),
                macs=(total_work(model, context.example), total_work(network, context.example)),
                changes=tuple(_change(model, network, seen, pair) for pair in kept),
                notes=tuple(notes),
                seconds=time.monotonic() - start,
            )
        )
        return network


class _Check:
    """Holds a fused network against the one it was made of."""

    def __init__(
        self, model: torch.nn.Module, seen: Observed, calls: Sequence[Mapping[str, np.ndarray]]
    ) -> None:
        self.model, self.seen, self.calls = model, seen, calls
        whole = copy.deepcopy(model).eval()
        self.wanted = [_outputs(whole, call) for call in calls]

    def kept(self, pairs: Sequence[Pair]) -> tuple[list[Pair], float]:
        """As many of the pairs as may be folded together, and the error with these."""
        error = self.error(pairs)
        if error <= MOST_ERROR:
            return list(pairs), error
        kept: list[Pair] = []
        error = 0.0
        for pair in pairs:
            with_it = self.error([*kept, pair])
            if with_it <= MOST_ERROR:
                kept, error = [*kept, pair], with_it
        return kept, error

    def error(self, pairs: Sequence[Pair]) -> float:
        """The largest difference over the largest value, of the output where that is most."""
        try:
            network = _fused(self.model, self.seen, pairs)
            got = [_outputs(network, call) for call in self.calls]
        except (AttributeError, RuntimeError, TypeError):
            return float("inf")  # the forward function reads something of the norm
        found = [0.0]
        for before, after in zip(zip(*self.wanted, strict=True), zip(*got, strict=True), strict=True):
            if any(one.shape != other.shape for one, other in zip(before, after, strict=True)):
                return float("inf")
            largest = max(float(np.abs(one).max(initial=0)) for one in before)
            differs = max(
                float(np.abs(one.astype(np.float64) - other).max(initial=0))
                for one, other in zip(before, after, strict=True)
            )
            found.append(differs / max(largest, 1e-30) if differs else 0.0)
        return float("inf") if any(np.isnan(found)) else max(found)


def _outputs(network: torch.nn.Module, call: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return list(call_module(network, tuple(call.values())).values())


def _norm_pairs(model: torch.nn.Module, seen: Observed) -> tuple[list[Pair], list[str]]:
    """The batch norms that can be folded, each with its layer; and why others are left alone."""
    pairs: list[Pair] = []
    left: dict[str, list[str]] = {}
    for name, norm in model.named_modules():
        if not isinstance(norm, norm_types()) or name not in seen.calls:
            continue
        layer = seen.before.get(name)
        why = (
            "what they read is not just what a layer wrote (an activation or a sum stands between)"
            if layer is None
            else _why_not(model, seen, layer, name)
        )
        if norm.running_mean is None:
            why = "has no statistics of its own"
        if why or layer is None:
            left.setdefault(why, []).append(name)
        else:
            pairs.append((layer, name))
    return pairs, [f"{names_of(names)}: left alone, {why}" for why, names in left.items()]


def _why_not(model: torch.nn.Module, seen: Observed, layer: str, after: str) -> str:
    """Why what comes after a layer cannot be part of it; empty where it can."""
    found: Any = model.get_submodule(layer)
    if seen.calls[layer] > 1 or seen.calls[after] > 1:
        return "it or its layer is used more than once"
    if seen.readers.get(layer, 0) > 1 and isinstance(model.get_submodule(after), norm_types()):
        return "its layer's output is read by others too"
    owners = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    if "weight" not in found._parameters or owners[id(found.weight)] > 1:
        return "its layer's weights are computed or shared"
    return ""


def _is_named_right(model: torch.nn.Module, seen: Observed, pair: Pair) -> bool:
    layer, after = pair
    names = dict(model.named_modules())
    for name in pair:
        if name not in names:
            raise BadInput(f"no module `{name}`", where="fuse pairs", todo=nearest(name, names) or None)
    why = (
        "the first is no convolution or linear layer"
        if not isinstance(names[layer], layer_types())
        else "the second is not given the first's output"
        if seen.before.get(after) != layer
        else _why_not(model, seen, layer, after)
        or ("" if _affine(model, seen, pair) else "the second does more than scale and shift channels")
    )
    if why:
        raise BadInput(f"{layer} with {after} cannot be folded: {why}", where="fuse pairs")
    return True


def _affine(model: torch.nn.Module, seen: Observed, pair: Pair) -> tuple[torch.Tensor, torch.Tensor] | None:
    layer, after = (model.get_submodule(name) for name in pair)
    if isinstance(after, norm_types()):
        return norm_affine(after)
    import torch

    shape = seen.given[pair[1]]
    return probed_affine(after, shape, len(shape) - 1 if isinstance(layer, torch.nn.Linear) else 1)


def _fused(model: torch.nn.Module, seen: Observed, pairs: Sequence[Pair]) -> torch.nn.Module:
    """A copy in which these are folded."""
    import torch

    network = copy.deepcopy(model).eval()
    for layer, after in pairs:
        affine = _affine(model, seen, (layer, after))
        if affine is None:
            raise ValueError(f"{after} is no scale and shift")
        fold(network.get_submodule(layer), *affine)
        network.set_submodule(after, torch.nn.Identity())
    return network


def _change(before: torch.nn.Module, after: torch.nn.Module, seen: Observed, pair: Pair) -> Change:
    layer, norm = pair
    old = sum(params_of(before.get_submodule(name)) for name in pair)
    return Change(
        layer=layer,
        what=f"with {norm}",
        params=(old, params_of(after.get_submodule(layer))),
        macs=(seen.macs[layer], seen.macs[layer]),
    )


def _activations(seen: Observed) -> list[str]:
    """What the runtimes will compute together with a layer; a torch network cannot say it."""
    many = Counter(kind for _, kind in seen.activations)
    if not many:
        return []
    listed = ", ".join(f"{number} {kind}" for kind, number in many.items())
    return [f"right after a layer: {listed}; left to the runtime"]
