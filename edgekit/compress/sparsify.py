"""The step `sparsify`: single weights become zero; the network keeps its shape."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.compress.context import Context
from edgekit.compress.pruning.masks import Pattern, apply_masks, growing, masks_for, train_masked, weights_of
from edgekit.compress.pruning.prune_report import names_of
from edgekit.compress.pruning.widths import macs_by_layer
from edgekit.compress.teaching.lesson import SEED
from edgekit.compress.teaching.training_data import as_inputs
from edgekit.compress.teaching.training_state import seed_all
from edgekit.compress.totals import params_of, total_work
from edgekit.errors import BadInput
from edgekit.result import Change, StepReport
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

# onnxruntime makes sparse initializers dense when it loads them (microsoft/onnxruntime 5578); the others by
# their documentation: TensorRT's SPARSE_WEIGHTS, XNNPACK's "Sparse inference", OpenVINO's
# CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE.
GAINS = (
    "zeros cost onnxruntime and ExecuTorch as much time and memory as other weights; what can gain are "
    "TensorRT on Ampere or later (2:4, with SPARSE_WEIGHTS), XNNPACK on ARM (1x1 convolutions in float with "
    "two thirds zeros), OpenVINO on CPUs with AMX (int8 matrix products, off by default); edgekit switches "
    "none of it on"
)


class Sparsify(BaseModel):
    """Unstructured pruning by magnitude (Han et al. 2015), n:m (Mishra et al. 2021) or in blocks.

    NNCF 3.4's pruning is not used: it gives masks for torch as well, and neither n:m nor blocks. Nor is
    torch.nn.utils.prune: its masks live in hooks, which are in the way of copies and of the export.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["sparsify"] = "sparsify"
    pattern: Literal["unstructured", "block", "n:m"] = Field(
        default="unstructured",
        description="weights on their own, in blocks, or n of every m neighbouring inputs",
    )
    sparsity: float = Field(default=0.5, gt=0, lt=1, description="share of zeros; n:m has its own")
    scope: Literal["global", "layer"] = Field(
        default="global", description="rank the weights of all layers together, or of each on its own"
    )
    n: int = Field(default=2, ge=1, description="of n:m: weights that stay")
    m: int = Field(
        default=4, ge=2, le=64, description="of n:m: neighbouring inputs that are looked at together"
    )
    block: tuple[int, int] = Field(default=(4, 1), description="of block: outputs x inputs")
    schedule: Literal["one-shot", "gradual", "lottery-ticket"] = Field(
        default="one-shot",
        description="at once and then fine-tuned; more and more while training; or by what a training from "
        "scratch finds, which then starts again from its early weights",
    )
    epochs: int = Field(default=0, ge=0, le=1000, description="passes over the training data, zeros held")
    rewind_epoch: int = Field(
        default=1, ge=0, description="of lottery-ticket: whose weights it starts again from"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Sparsify:
        if self.n >= self.m:
            raise ValueError("of n:m, n is smaller than m")
        if min(self.block) < 1:
            raise ValueError("a block has at least one output and one input")
        if self.schedule != "one-shot" and not self.epochs:
            raise ValueError(f"the schedule {self.schedule} needs `epochs`")
        if self.schedule == "gradual" and self.pattern == "n:m":
            raise ValueError("n:m has one share of zeros and cannot be gradual")
        if self.schedule == "lottery-ticket" and self.rewind_epoch >= self.epochs:
            raise ValueError("`rewind_epoch` comes before the last of `epochs`")
        return self

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """A copy with zeros; a later step that trains fills them again.

        Raises:
            BadInput: the network is an exported one, no layer fits the pattern, or there is no training data
                where some is needed.
        """
        import torch

        if isinstance(model, torch.jit.ScriptModule | torch.fx.GraphModule):
            raise BadInput(
                "an exported network cannot be trained on, its forward is frozen",
                where=f"sparsify {task.name}",
                todo="give the task file or the factory that builds the network",
            )
        network, start = copy.deepcopy(model).eval(), time.monotonic()
        pattern = Pattern(kind=self.pattern, scope=self.scope, block=self.block, n=self.n, m=self.m)
        weights = weights_of(network)
        fitting = [name for name, weight in weights.items() if pattern.fits(weight)]
        if not fitting:
            raise BadInput(f"no layer fits the pattern {self.pattern}", where=f"sparsify {task.name}")

        def masks(sparsity: float, found: Mapping[str, torch.Tensor]) -> Tensors:
            return masks_for({name: found[name] for name in fitting}, pattern, sparsity)

        if self.schedule == "gradual":
            train_masked(
                network,
                task,
                context,
                self.epochs,
                lambda done, now: masks(growing(self.sparsity, done), now),
            )
            apply_masks(weights, masks(self.sparsity, weights))
        else:
            early = self._by_ticket(network, task, context) if self.schedule == "lottery-ticket" else None
            fixed = masks(self.sparsity, weights)
            if early is not None:
                network.load_state_dict(early)
            apply_masks(weights, fixed)
            if self.epochs:
                rest = self.epochs - (self.rewind_epoch if early is not None else 0)
                train_masked(network, task, context, rest, lambda _done, _now: fixed, keep_best=True)
        report = self._report(network, context, [n for n in weights if n not in fitting])
        context.reports.append(replace(report, seconds=time.monotonic() - start))
        return network

    def _by_ticket(self, network: torch.nn.Module, task: Task, context: Context) -> dict[str, torch.Tensor]:
        """Train `network` from scratch (Frankle et al. 2020); its state after `rewind_epoch`."""
        seed_all(SEED)
        for module in network.modules():
            if callable(getattr(module, "reset_parameters", None)):
                module.reset_parameters()  # type: ignore[operator]
        if self.rewind_epoch:
            train_masked(network, task, context, self.rewind_epoch, lambda _done, _now: {})
        early = copy.deepcopy(network.state_dict())
        train_masked(network, task, context, self.epochs - self.rewind_epoch, lambda _done, _now: {})
        return early

    def _report(self, network: torch.nn.Module, context: Context, left: list[str]) -> StepReport:
        work = macs_by_layer(network, as_inputs(context.example))
        changes = []
        for name, weight in weights_of(network).items():
            zeros, count = int((weight == 0).sum()), weight.numel()
            if zeros:
                what = f"{zeros} of {count} weights are zero"
                changes.append(
                    Change(layer=name, what=what, params=(count, count), macs=(work[name], work[name]))
                )
        notes = [GAINS]
        if left:
            notes.append(f"{names_of(left)} do not divide into the pattern and are as they were")
        params, macs = params_of(network), total_work(network, context.example)
        return StepReport(
            step=self.step,
            params=(params, params),
            macs=(macs, macs),
            changes=tuple(changes),
            notes=tuple(notes),
        )
