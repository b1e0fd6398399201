"""The blocks of a network that can be taken out whole: they give the shape that they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgekit.compress.pruning.narrow import heavy_types
from edgekit.compress.pruning.widths import macs_by_layer

if TYPE_CHECKING:
    import torch

FOLLOWS = 0.1  # of the places of a residual block must change by what the input changes there


@dataclass(kw_only=True)
class Seen:
    """What a module was given and gave in one call of the network.

    Attributes:
        inputs, outputs: of every time that it ran; None as soon as one was not a single tensor.
    """

    inputs: list[torch.Tensor] | None = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)

    def keeps_shape(self) -> bool:
        """Whether it ran, and could be an identity as far as shapes go."""
        if not self.inputs:
            return False
        pairs = zip(self.inputs, self.outputs, strict=True)
        return all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)


def removable(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[list[str], list[str]]:
    """The blocks that can become an identity, and those of the same classes that cannot, by name.

    A block is a module with layers inside that keeps the shape of its input and is residual: its output still
    changes as the input does when its convolutions and linear layers give nothing, so that without it the
    signal goes on as before. Of blocks inside one another it is the innermost that hold most of the work of
    what they are in: a stage is left to its blocks. In a network without any, modules that keep the shape
    count too: the branch of a sum written in the network's own forward, a layer of a plain chain. What holds
    all the work is no block.

    Args:
        model: in evaluation mode; left as it was.
        inputs: one example call.
    """
    seen, macs = _watch(model, inputs), macs_by_layer(model, inputs)
    work = {name: _inside(name, macs) for name in seen}
    whole = sum(macs.values())
    able = [name for name, one in seen.items() if 0 < work[name] < whole and one.keeps_shape()]
    residual = [name for name in able if _is_residual(model.get_submodule(name), seen[name])]
    found = _innermost(residual or able, work)
    blocks = [name for name in seen if name in found]
    classes = {type(model.get_submodule(name)) for name in found if residual}
    left = [
        name
        for name in seen
        if type(model.get_submodule(name)) in classes and not any(_related(name, other) for other in blocks)
    ]
    return blocks, left


def _watch(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, Seen]:
    """What happened in all modules that have others inside, but the network itself and lists."""
    import torch

    seen = {name: Seen() for name, module in model.named_modules() if name and any(module.children())}
    names = {module: name for name, module in model.named_modules()}

    def note(module: Any, given: Any, named: Any, output: Any) -> None:
        one = seen[names[module]]
        single = len(given) == 1 and not named and all(isinstance(t, torch.Tensor) for t in (*given, output))
        if not single:
            one.inputs = None
        if one.inputs is not None:
            one.inputs.append(given[0].detach())
            one.outputs.append(output.detach())

    handles = [model.get_submodule(name).register_forward_hook(note, with_kwargs=True) for name in seen]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _is_residual(module: torch.nn.Module, seen: Seen) -> bool:
    """Whether the output changes by as much as the input although all layers inside give nothing.

    Not at all places, for a ReLU may stand behind the sum. A gate (squeeze-and-excitation) follows its input
    too, but by another factor.
    """
    import torch

    def nothing(_layer: Any, _inputs: Any, output: Any) -> Any:
        return torch.zeros_like(output)

    handles = [m.register_forward_hook(nothing) for m in module.modules() if isinstance(m, heavy_types())]
    shape = (seen.inputs or [])[0].shape
    given = torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    try:
        with torch.no_grad():
            changed = (module(2 * given) - module(given)) / given
    except Exception:  # noqa: BLE001 - whatever it relies on, it is no plain residual block
        return False
    finally:
        for handle in handles:
            handle.remove()
    return float(((changed - 1).abs() < 1e-2).float().mean()) >= FOLLOWS


def _innermost(names: Sequence[str], work: Mapping[str, int]) -> list[str]:
    """Those that do not leave most of their work to others of `names` inside, and are inside of none."""
    found: list[str] = []
    for name in sorted(names, key=lambda one: one.count("."), reverse=True):
        inside = [other for other in found if other.startswith(name + ".")]
        if sum(work[other] for other in inside) < work[name] / 2:
            found = [other for other in found if other not in inside] + [name]
    return found


def _inside(name: str, macs: Mapping[str, int]) -> int:
    return sum(count for layer, count in macs.items() if layer.startswith(name + "."))


def _related(name: str, other: str) -> bool:
    return name == other or name.startswith(other + ".") or other.startswith(name + ".")


def without(model: torch.nn.Module, names: Iterable[str]) -> torch.nn.Module:
    """The model with an identity in the place of each of these modules, changed in place."""
    import torch

    for name in names:
        gone = model.get_submodule(name)
        for place, module in list(model.named_modules(remove_duplicate=False)):
            if module is gone:
                parent, _, own = place.rpartition(".")
                setattr(model.get_submodule(parent), own, torch.nn.Identity())
    return model
