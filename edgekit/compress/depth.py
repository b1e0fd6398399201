"""The step `depth`: remove whole blocks, for on small networks it is operators that cost, not their work."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.compress.calls import spread
from edgekit.compress.context import Context
from edgekit.compress.pruning.blocks import removable, without
from edgekit.compress.pruning.prune_report import names_of
from edgekit.compress.teaching.losses import relative_distance
from edgekit.compress.teaching.training import one_thread
from edgekit.compress.totals import params_of, total_work
from edgekit.errors import BadInput
from edgekit.result import Change, StepReport
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

    Batches = list[tuple[tuple[torch.Tensor, ...], Any]]

CALLS = 32


class Depth(BaseModel):
    """Remove the residual blocks that matter least, one after the other (Wang et al. 2019, ShortGPT 2024).

    What a block matters is how far the network's outputs on the calibration data move without it; it is found
    anew after each removal. Distil afterwards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["depth"] = "depth"
    macs: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of the multiply-accumulates to keep, at most; or give `blocks`",
    )
    blocks: int | None = Field(default=None, ge=1, description="blocks to remove; or give `macs`")

    @model_validator(mode="after")
    def _one_of_both(self) -> Depth:
        if (self.macs is None) == (self.blocks is None):
            raise ValueError("`depth` needs one of `macs` and `blocks`")
        return self

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """A copy with an identity in the place of each removed block.

        Raises:
            BadInput: the network is an exported one, there is no calibration data, or fewer blocks can go.
        """
        import torch

        where = f"depth {task.name}"
        if isinstance(model, torch.jit.ScriptModule | torch.fx.GraphModule):
            raise BadInput(
                "an exported network has no blocks left, its forward is frozen",
                where=where,
                todo="give the task file or the factory that builds the network",
            )
        if not context.calls:
            raise BadInput(
                "the blocks are ranked on calibration data, and there is none",
                where=where,
                todo="add `calibration_data()` to the task file",
            )
        network, start = copy.deepcopy(model).eval(), time.monotonic()
        inputs = tuple(torch.from_numpy(array.copy()) for array in task.example)
        able, left = removable(network, inputs)
        whole = total_work(network, context.example)
        with one_thread():
            batches = _batches(network, context)
            changes = self._remove(network, batches, able, whole, context)
        share = (whole - sum(change.macs[0] for change in changes)) / whole
        if not self._enough(len(changes), share):
            asked = f"{self.macs:.0%}" if self.macs is not None else f"{self.blocks} fewer"
            raise BadInput(
                f"{len(changes)} blocks keep the shape of their input and can go, which leaves "
                f"{share:.0%} of the work; {asked} was asked",
                where=where,
                todo="ask for less, and narrow the rest by `prune`",
            )
        report = self._report(model, network, context, changes, left)
        context.reports.append(replace(report, seconds=time.monotonic() - start))
        return network

    def _enough(self, removed: int, share: float) -> bool:
        return removed >= self.blocks if self.blocks is not None else share <= (self.macs or 0)

    def _remove(
        self, network: torch.nn.Module, batches: Batches, able: list[str], whole: int, context: Context
    ) -> list[Change]:
        """Take blocks out of `network` until enough are gone or none can go."""
        changes: list[Change] = []
        while able and not self._enough(len(changes), 1 - sum(c.macs[0] for c in changes) / whole):
            now = total_work(network, context.example)
            found = []
            for name in able:
                context.detail(f"block {len(changes) + 1}: without {name}")
                tried = _tried(network, name, batches)
                if tried is not None:
                    found.append((tried[0], now - total_work(tried[1], context.example), name))
            if not found:
                break
            damage, saved, name = min(found, key=self._price)
            params = params_of(network.get_submodule(name))
            without(network, [name])
            changes.append(
                Change(layer=name, what="removed", params=(params, 0), macs=(saved, 0), error=damage**0.5)
            )
            able = [other for _, _, other in found if other != name]
        return changes

    def _price(self, found: tuple[float, int, str]) -> float:
        """The damage, for each multiply-accumulate saved where a share of them is what was asked."""
        damage, saved, _ = found
        return damage if self.macs is None else damage / max(saved, 1)

    def _report(
        self,
        before: torch.nn.Module,
        after: torch.nn.Module,
        context: Context,
        changes: Sequence[Change],
        left: Sequence[str],
    ) -> StepReport:
        notes = [f"{names_of(left)} change the shape of what they are given and stay"] if left else []
        return StepReport(
            step=self.step,
            params=(params_of(before), params_of(after)),
            macs=(total_work(before, context.example), total_work(after, context.example)),
            changes=tuple(changes),
            notes=tuple(notes),
        )


def _batches(network: torch.nn.Module, context: Context) -> Batches:
    """Calibration calls, with what the network answers to them."""
    import torch

    found = []
    with torch.no_grad():
        for call in spread(context.calls, CALLS):
            inputs = tuple(torch.from_numpy(array.copy()) for array in call.values())
            found.append((inputs, network(*inputs)))
    return found


def _tried(network: torch.nn.Module, name: str, batches: Batches) -> tuple[float, torch.nn.Module] | None:
    """The mean relative distance of the outputs without a block, squared; None where it does not run so."""
    import torch

    tried = without(copy.deepcopy(network), [name])
    try:
        with torch.no_grad():
            damages = [float(relative_distance(tried(*inputs), answer, None)) for inputs, answer in batches]
    except Exception:  # noqa: BLE001 - its forward needs more of the block than its output
        return None
    return sum(damages) / len(damages), tried
