"""The step `prune`: remove whole channels, so that the exported network really is smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.compress.context import Context
from edgekit.compress.narrow import heavy_types, narrow_by, narrowable
from edgekit.errors import BadInput, first_line
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

SEARCH_STEPS = 24


class Prune(BaseModel):
    """Structured pruning by DepGraph (Fang et al. 2023) with group L1 importance, no training.

    Widths are computed here and given to torch-pruning one by one: its own `round_to` silently leaves layers
    whose rounded width would be 0 unpruned, so that asking for less can give more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "network"

    step: Literal["prune"] = "prune"
    macs: float = Field(0.5, gt=0, lt=1, description="share of the multiply-accumulates to keep, at most")
    round_to: int | None = Field(
        None, ge=1, description="channels are a multiple of this; the profile's width"
    )

    def apply(self, model: torch.nn.Module, task: Task, context: Context) -> torch.nn.Module:
        """The widest network, all layers narrowed by one factor, that keeps at most `macs` of the work.

        Raises:
            BadInput: the network cannot be traced, or has nothing that can be narrowed that far.
        """
        import torch

        if isinstance(model, torch.jit.ScriptModule | torch.fx.GraphModule):
            raise BadInput(
                "an exported network cannot be pruned, its forward is frozen",
                where=f"prune {task.name}",
                todo="give the task file or the factory that builds the network",
            )
        inputs = tuple(torch.from_numpy(array.copy()) for array in task.example)
        step = self.round_to or context.round_to
        try:
            return self._search(model, inputs, step, context)
        except BadInput:
            raise
        except Exception as error:
            reason = f"torch-pruning cannot follow its channels ({first_line(error)})"
            raise BadInput(reason, where=f"prune {task.name}") from error

    def _search(
        self, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], step: int, context: Context
    ) -> torch.nn.Module:
        """Widths fall monotonically with the factor, so the first network small enough is the widest one."""
        whole, least = count_macs(model, inputs), 1.0
        layers = narrowable(model, inputs)
        if not layers:
            raise BadInput(
                "no layer can be narrowed: each writes an output or belongs to attention or recurrence",
                where="prune",
            )
        for index in range(1, SEARCH_STEPS + 1):
            factor = 1 - index / (SEARCH_STEPS + 1)
            context.detail(f"width {factor:.2f}")
            narrow = narrow_by(model, inputs, {n: _kept(width, factor, step) for n, width in layers.items()})
            share = count_macs(narrow, inputs) / whole
            least = min(least, share)
            if share <= self.macs:
                return narrow
        raise BadInput(
            f"at least {least:.0%} of the work stays with channels in multiples of {step}, "
            f"{self.macs:.0%} was asked",
            where="prune",
        )


def _kept(width: int, factor: float, step: int) -> int:
    """The channels that stay of `width`: a multiple of `step`, and all of a layer narrower than that."""
    return min(width, max(step, int(width * factor / step + 0.5) * step))


def count_macs(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """Multiply-accumulates of convolutions and linear layers in one call."""
    import torch

    total = 0

    def add(layer: Any, _inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, heavy_types())]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total
