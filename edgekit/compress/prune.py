"""The step `prune`: remove whole channels, so that the exported network really is smaller."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.compress.context import Context
from edgekit.compress.distill import Distill
from edgekit.compress.pruning.importance import Criterion, Importance, importance_of
from edgekit.compress.pruning.narrow import narrow_by, narrowable
from edgekit.compress.pruning.prune_report import changes_of, names_of
from edgekit.compress.pruning.regularise import Pressure, regularised
from edgekit.compress.pruning.schedule import Schedule, shares
from edgekit.compress.pruning.widths import by_rank, cost, look, macs_by_layer, narrowest, widest
from edgekit.compress.totals import params_of
from edgekit.errors import BadInput, first_line
from edgekit.result import StepReport
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

CORRECTIONS = 8  # of the predicted work, where torch-pruning keeps other widths than it was told


class Prune(BaseModel):
    """Structured pruning along the dependencies between layers (DepGraph, Fang et al. 2023).

    Widths are computed here and given to torch-pruning one by one: its own `round_to` silently leaves layers
    whose rounded width would be 0 unpruned, so that asking for less can give more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["prune"] = "prune"
    macs: float = Field(
        default=0.5, gt=0, le=1, description="share of the multiply-accumulates to keep, at most"
    )
    ratio: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="share of the multiply-accumulates to remove, at least; the same as macs = 1 - ratio, as "
        "which it is kept: give one of both",
    )
    round_to: int | None = Field(
        default=None, ge=1, description="channels are a multiple of this; the profile's width"
    )
    criterion: Criterion = Field(
        default="l1",
        description="which channels go; taylor and fisher need training or calibration data, "
        "activation-variance and feature-rank calibration data",
    )
    scope: Literal["uniform", "global"] = Field(
        default="uniform",
        description="every layer by one factor, or channels ranked across layers by their importance over "
        "the mean of their layer",
    )
    schedule: Schedule = Field(
        default="one-shot",
        description="how the share comes down over the rounds; each but the last is fine-tuned",
    )
    rounds: int = Field(default=3, ge=2, le=100, description="of a schedule that is not one-shot")
    round_epochs: int = Field(
        default=1, ge=1, le=1000, description="passes over the training data between rounds"
    )
    regularise: Literal["group-norm", "nuclear-norm"] = Field(
        default="group-norm", description="what is kept small while training before the channels go"
    )
    regularise_epochs: int = Field(
        default=0, ge=0, le=1000, description="passes over the training data with it; 0 leaves it out"
    )
    regularise_weight: float = Field(default=1e-3, gt=0, le=1, description="its weight beside the loss")

    @model_validator(mode="before")
    @classmethod
    def _ratio_is_macs(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("ratio"), int | float):
            return data
        if "macs" in data:
            raise ValueError("`macs` and `ratio` say the same: give one of both")
        if not 0 <= data["ratio"] < 1:
            return data
        others = {key: value for key, value in data.items() if key != "ratio"}
        return {**others, "macs": round(1 - data["ratio"], 12)}

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """The widest network by the criterion that keeps at most `macs` of the work.

        Raises:
            BadInput: the network cannot be traced, or has nothing that can be narrowed that far; the
                criterion or the schedule needs data that the task does not have.
        """
        import torch

        if isinstance(model, torch.jit.ScriptModule | torch.fx.GraphModule):
            raise BadInput(
                "an exported network cannot be pruned, its forward is frozen",
                where=f"prune {task.name}",
                todo="give the task file or the factory that builds the network",
            )
        inputs, start = tuple(torch.from_numpy(array.copy()) for array in task.example), time.monotonic()
        try:
            network, report = self._in_rounds(model, inputs, task, context)
        except BadInput:
            raise
        except Exception as error:
            reason = f"torch-pruning cannot follow its channels ({first_line(error)})"
            raise BadInput(reason, where=f"prune {task.name}") from error
        context.reports.append(replace(report, seconds=time.monotonic() - start))
        return network

    def _in_rounds(
        self, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], task: Task, context: Context
    ) -> tuple[torch.nn.Module, StepReport]:
        layers = narrowable(model, inputs)
        if not layers:
            raise BadInput(
                "no layer can be narrowed: each writes an output or belongs to attention or recurrence",
                where="prune",
            )
        whole = sum(macs_by_layer(model, inputs).values())
        network = copy.deepcopy(model).eval()
        fallback: tuple[str, ...] = ()
        if self.regularise_epochs:
            pressure = Pressure(
                norm=self.regularise, epochs=self.regularise_epochs, weight=self.regularise_weight
            )
            network = regularised(network, layers, task, context, pressure)
        for number, share in enumerate(shares(self.schedule, self.macs, self.rounds)):
            if number:
                # what it says and whom it could teach stay inside: only the last network is anyone else's
                inner = replace(context, reports=[], taught=[])
                network = Distill(epochs=self.round_epochs).apply(network, task, inner)
            importance = importance_of(self.criterion, network, layers, task, list(context.calls))
            network = self._narrowed(network, inputs, layers, importance, share * whole, whole, context)
            fallback = importance.fallback
        return network, self._report(model, network, inputs, layers, fallback)

    def _narrowed(
        self,
        model: torch.nn.Module,
        inputs: tuple[torch.Tensor, ...],
        layers: Mapping[str, int],
        importance: Importance,
        most: float,
        whole: float,
        context: Context,
    ) -> torch.nn.Module:
        import torch

        step = self.round_to or context.round_to
        groups, work = look(model, inputs, layers, step)
        scale = by_rank(importance.scores) if self.scope == "uniform" else importance.scores
        ranks = {root: torch.from_numpy(values) for root, values in importance.scores.items()}
        aim = most
        for _ in range(CORRECTIONS):
            kept = widest(groups, scale, work, aim)
            if kept is None:
                break
            by_layer = {name: kept[group.root] for group in groups for name in group.layers if name in layers}
            narrow = narrow_by(model, inputs, by_layer, ranks)
            got = sum(macs_by_layer(narrow, inputs).values())
            context.detail(f"{got / whole:.0%} of the work")
            if got <= most:
                return narrow
            aim *= most / got * 0.99
        least = cost(groups, work, narrowest(groups)) / whole
        raise BadInput(
            f"at least {least:.0%} of the work stays with channels in multiples of {step}, "
            f"{self.macs:.0%} was asked",
            where="prune",
        )

    def _report(
        self,
        before: torch.nn.Module,
        after: torch.nn.Module,
        inputs: tuple[torch.Tensor, ...],
        layers: Mapping[str, int],
        fallback: tuple[str, ...],
    ) -> StepReport:
        old, new = macs_by_layer(before, inputs), macs_by_layer(after, inputs)
        left, notes = [name for name in old if name not in layers], []
        if left:
            notes.append(
                f"{names_of(left)} keep all channels: outputs, attention, recurrence, or a forward function "
                "that relies on the width"
            )
        if fallback:
            notes.append(f"{self.criterion} says nothing about {names_of(fallback)}: ranked by l1")
        return StepReport(
            step=self.step,
            params=(params_of(before), params_of(after)),
            macs=(sum(old.values()), sum(new.values())),
            changes=changes_of(before, after, old, new),
            notes=tuple(notes),
        )
