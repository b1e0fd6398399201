"""What a student is taught of the inside of its teacher: features, or where it looks.

Layers are matched by name: a compressed network keeps its original's names, and differs in widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from edgekit.compress.teaching.losses import attention_distance, energy_ratio
from edgekit.errors import BadInput
from edgekit.near import nearest

if TYPE_CHECKING:
    import torch

    Inputs = tuple[torch.Tensor, ...]

MOST = 3  # layers that are chosen where the resolution tells no stages apart


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One layer in both networks.

    Attributes:
        name: of it in both.
        axis: of the channels in its output.
        widths: channels in the student and the teacher.
    """

    name: str
    axis: int
    widths: tuple[int, int]


@dataclass(kw_only=True)
class Inside:
    """Looks at layers of both networks while they run.

    Attributes:
        pairs: the layers.
        kind: "features" (FitNets, Romero et al. 2015) or "attention" (Zagoruyko & Komodakis 2017).
        adapters: one for each pair whose widths differ; a linear map of channels, which is a 1x1 convolution.
        seen: the outputs of the student's and the teacher's layers in the running step.
        handles: take the hooks off again.
    """

    pairs: Sequence[Pair]
    kind: Literal["features", "attention"]
    adapters: list[torch.nn.Module]
    seen: tuple[dict[str, Any], dict[str, Any]] = field(default_factory=lambda: ({}, {}))
    handles: list[Any] = field(default_factory=list)

    def attach(self, student: torch.nn.Module, teacher: torch.nn.Module) -> None:
        """Note the layers' outputs from now on."""
        for network, seen in zip((student, teacher), self.seen, strict=True):
            for pair in self.pairs:
                hook = _noting(seen, pair.name)
                self.handles.append(network.get_submodule(pair.name).register_forward_hook(hook))

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()

    def loss(self) -> torch.Tensor:
        """How far the student's layers are from the teacher's in the step that both just ran, on average."""
        import torch

        student, teacher = self.seen
        found = []
        for pair, adapter in zip(self.pairs, self.adapters, strict=True):
            got, wanted = student[pair.name], teacher[pair.name].detach()
            if self.kind == "attention":
                found.append(attention_distance(got, wanted, pair.axis))
            else:
                moved = adapter(got.movedim(pair.axis, -1)).movedim(-1, pair.axis)
                found.append(energy_ratio(moved, wanted))
        return torch.stack(found).mean()


def _noting(seen: dict[str, Any], name: str) -> Any:
    def note(_layer: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        seen[name] = output

    return note


def inside_of(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    inputs: Inputs,
    kind: Literal["features", "attention"],
    names: Sequence[str],
) -> Inside:
    """What to look at: these layers, else the last of each resolution.

    Args:
        student: the compressed network.
        teacher: of the same kind.
        inputs: of one call.
        kind: attention needs maps: outputs with places.
        names: of layers in both; empty chooses.

    Raises:
        BadInput: a name is none of both networks' layers, or no layer can be compared.
    """
    import torch

    one, other = _outputs(student, inputs), _outputs(teacher, inputs)
    pairs = {
        name: pair
        for name in other
        if name in one and (pair := _pair(name, one[name], other[name], _channels_first(teacher)))
    }
    if kind == "attention":
        pairs = {name: pair for name, pair in pairs.items() if _places(other[name].shape, pair.axis) > 1}
    for name in names:
        if name not in pairs:
            advice = nearest(name, pairs)
            raise BadInput(
                f"`{name}` is no layer that both networks have and whose outputs can be compared",
                where="distill",
                todo=advice or "name blocks of the network, or leave `layers` out",
            )
    chosen = [pairs[name] for name in names] or _ends_of_stages(pairs, other)
    if not chosen:
        raise BadInput(
            f"no layer inside the network can be compared by {kind}",
            where="distill",
            todo="use kind logits",
        )
    adapters: list[torch.nn.Module] = [
        torch.nn.Identity()
        if pair.widths[0] == pair.widths[1] or kind == "attention"
        else torch.nn.Linear(*pair.widths)
        for pair in chosen
    ]
    return Inside(pairs=chosen, kind=kind, adapters=adapters)


def _outputs(network: torch.nn.Module, inputs: Inputs) -> dict[str, torch.Tensor]:
    """The output of each layer that is called once and gives one tensor, in the order they finish.

    Left out are what is the network's own output, and what is the same as an inner layer's.
    """
    import torch
    from torch.utils import _pytree as pytree

    found: dict[str, torch.Tensor] = {}
    calls: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(_layer: torch.nn.Module, _inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(output, torch.Tensor) and output.is_floating_point() and output.ndim >= 2:
                found[name] = output

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            last = {id(leaf) for leaf in pytree.tree_leaves(network(*inputs))}
    finally:
        for handle in handles:
            handle.remove()
    return {name: out for name, out in found.items() if calls[name] == 1 and id(out) not in last}


def _channels_first(network: torch.nn.Module) -> bool:
    """Whether three axes are (batch, channels, places), as one-dimensional convolutions have it."""
    import torch

    return any(isinstance(module, torch.nn.Conv1d) for module in network.modules())


def _pair(name: str, one: torch.Tensor, other: torch.Tensor, channels_first: bool) -> Pair | None:
    """The layer of both networks; None where more than the channels differs."""
    if one.ndim != other.ndim:
        return None
    differing = [axis for axis in range(one.ndim) if one.shape[axis] != other.shape[axis]]
    usual = one.ndim - 1 if one.ndim == 3 and not channels_first else 1
    axis = differing[0] if differing else usual
    if len(differing) > 1 or axis == 0:
        return None
    return Pair(name=name, axis=axis, widths=(one.shape[axis], other.shape[axis]))


def _places(shape: Sequence[int], axis: int) -> int:
    count = 1
    for place, size in enumerate(shape):
        count *= size if place not in (0, axis) else 1
    return count


def _ends_of_stages(pairs: dict[str, Pair], outputs: dict[str, torch.Tensor]) -> list[Pair]:
    """The last layer before the resolution changes, each time; a few, evenly spread, where it never does."""

    def resolution(name: str) -> tuple[int, ...]:
        axis = pairs[name].axis
        return tuple(size for place, size in enumerate(outputs[name].shape) if place not in (0, axis))

    runs = [list(run) for _, run in groupby(pairs, key=resolution)]
    maps = [run for run in runs if _places(outputs[run[-1]].shape, pairs[run[-1]].axis) > 1] or runs
    if len(maps) == 1:
        run = maps[0]
        return [
            pairs[run[(number + 1) * len(run) // MOST - 1]] for number in range(MOST) if len(run) >= MOST
        ] or [pairs[run[-1]]]
    return [pairs[run[-1]] for run in maps]
