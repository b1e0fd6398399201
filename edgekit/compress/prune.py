"""The step `prune`: remove whole channels, so that the exported network really is smaller."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.compress.context import Context
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
            raise BadInput(f"cannot be pruned: {first_line(error)}", where=f"prune {task.name}") from error

    def _search(
        self, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], step: int, context: Context
    ) -> torch.nn.Module:
        """Widths fall monotonically with the factor, so the first network small enough is the widest one."""
        whole, least = count_macs(model, inputs), 1.0
        for index in range(1, SEARCH_STEPS + 1):
            factor = 1 - index / (SEARCH_STEPS + 1)
            context.detail(f"width {factor:.2f}")
            narrow = narrow_by(model, inputs, factor, step)
            share = count_macs(narrow, inputs) / whole
            least = min(least, share)
            if share <= self.macs:
                return narrow
        raise BadInput(
            f"at least {least:.0%} of the work stays with channels in multiples of {step}, "
            f"{self.macs:.0%} was asked",
            where="prune",
        )


def narrow_by(
    model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], factor: float, step: int
) -> torch.nn.Module:
    """A copy whose layers keep `factor` of their channels, rounded to `step`; outputs keep their shapes.

    Args:
        model: left as it was.
        inputs: one example call.
        factor: share of the channels to keep, 0 to 1.
        step: kept channels are a multiple of this; a layer narrower than it stays as it is.
    """
    import torch_pruning as tp

    narrow = copy.deepcopy(model).eval()
    layers = [module for module in narrow.modules() if isinstance(module, _layer_types())]
    kept = _output_layers(narrow, inputs)
    ratios = {
        layer: ratio
        for layer in layers
        if layer not in kept and (ratio := _ratio(_width(layer), factor, step)) > 0
    }
    heads = _attention_heads(narrow)
    pruner = tp.pruner.BasePruner(
        narrow,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=1),
        pruning_ratio=0.0,
        pruning_ratio_dict=ratios,
        global_pruning=False,
        ignored_layers=[*kept, *heads],
    )
    pruner.step()
    if _output_shapes(narrow, inputs) != _output_shapes(model, inputs):
        raise BadInput("narrowing changes the shapes of the outputs", where="prune")
    for parameter in narrow.parameters():
        parameter.grad = None
    return narrow


def _width(layer: Any) -> int:
    return int(layer.out_channels if hasattr(layer, "out_channels") else layer.out_features)


def _ratio(width: int, factor: float, step: int) -> float:
    """The pruning ratio that leaves exactly the rounded width; torch-pruning truncates, hence the 0.01."""
    target = min(width, max(step, int(width * factor / step + 0.5) * step))
    return max(0.0, 1 - (target + 0.01) / width) if target < width else 0.0


def _output_layers(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.nn.Module]:
    """The layers whose channels are the network's outputs: no other layer reads them."""
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, example_inputs=inputs)

    def is_read(group: Any) -> bool:
        readers = [i for i in group if not graph.is_out_channel_pruning_fn(i.dep.handler) and _is_layer(i)]
        return bool(readers) and not any("Output" in type(i.dep.target.module).__name__ for i in group)

    return [
        layer
        for layer in model.modules()
        if isinstance(layer, _layer_types())
        and not is_read(
            graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, [0])
        )
    ]


def _is_layer(item: Any) -> bool:
    return isinstance(item.dep.target.module, _layer_types())


def _layer_types() -> tuple[type[torch.nn.Module], ...]:
    import torch

    return (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Linear)


def _output_shapes(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[tuple[int, ...]]:
    import torch
    from torch.utils import _pytree as pytree

    with torch.no_grad():
        leaves = pytree.tree_leaves(model(*inputs))
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _attention_heads(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Attention blocks, left as they are: their forward relies on the head width."""
    import torch

    return [m for m in model.modules() if isinstance(m, torch.nn.MultiheadAttention | torch.nn.RNNBase)]


def count_macs(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """Multiply-accumulates of convolutions and linear layers in one call."""
    import torch

    total = 0

    def add(layer: Any, _inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, _layer_types())]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total
