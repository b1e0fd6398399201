"""What scales and shifts the channels of a layer's output as part of that layer: which may be, and how.

Who reads what is taken from the graph that autograd records in one call. That follows any forward function,
also those that torch.fx cannot trace.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Inputs = tuple[torch.Tensor, ...]

# As autograd names them, with the name that the field has for them.
ACTIVATIONS = {
    "Relu": "ReLU",
    "Gelu": "GELU",
    "Hardtanh": "ReLU6",
    "Silu": "SiLU",
    "Hardswish": "Hardswish",
    "Sigmoid": "sigmoid",
    "LeakyRelu": "LeakyReLU",
}


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What one call shows.

    Attributes:
        calls: of each module, by name.
        given: the shape of the first input of each module.
        macs: of each layer that can take something in.
        before: for each module the layer whose output it is given, as it is; None where there is none.
        readers: how many operations read a layer's output; what the network returns counts as read.
        activations: (layer, activation) where one follows a layer, or what is folded into it, directly.
    """

    calls: Mapping[str, int]
    given: Mapping[str, tuple[int, ...]]
    macs: Mapping[str, int]
    before: Mapping[str, str | None]
    readers: Mapping[str, int]
    activations: Sequence[tuple[str, str]]


def observe(model: torch.nn.Module, inputs: Inputs) -> Observed:
    """Watch a copy of the network in one call."""
    import torch
    from torch.utils import _pytree as pytree

    network: Any = copy.deepcopy(model).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    calls: Counter[str] = Counter()
    given: dict[str, tuple[int, ...]] = {}
    macs: dict[str, int] = {}
    reads: dict[str, Any] = {}
    writes: dict[Any, str] = {}

    def note(name: str) -> Any:
        def hook(module: Any, ins: Any, output: Any) -> None:
            calls[name] += 1
            if not ins or not isinstance(ins[0], torch.Tensor) or not isinstance(output, torch.Tensor):
                return
            given[name] = tuple(ins[0].shape)
            if isinstance(module, layer_types()):
                macs[name] = _macs(module, ins[0], output)
                writes[output.grad_fn] = name

        return hook

    def note_read(name: str) -> Any:
        def hook(_module: Any, ins: Any) -> None:
            reads[name] = ins[0].grad_fn if ins and isinstance(ins[0], torch.Tensor) else None

        return hook

    for name, module in network.named_modules():
        if name:
            module.register_forward_pre_hook(note_read(name))
            module.register_forward_hook(note(name))
    traced = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    with torch.enable_grad():
        leaves = pytree.tree_leaves(network(*traced))
    ends = [leaf.grad_fn for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.grad_fn is not None]
    read, activations = _readers(ends, writes)
    return Observed(
        calls=calls,
        given=given,
        macs=macs,
        before={name: writes.get(node) for name, node in reads.items()},
        readers={name: read[node] for node, name in writes.items()},
        activations=activations,
    )


def _readers(ends: Sequence[Any], writes: Mapping[Any, str]) -> tuple[Counter[Any], list[tuple[str, str]]]:
    """How often each operation's output is read, and the activations right after layers."""
    read: Counter[Any] = Counter(ends)
    activations = []
    waiting, known = list(dict.fromkeys(ends)), set(ends)
    while waiting:
        node = waiting.pop()
        kind = node.name().partition("Backward")[0]
        for before, _ in node.next_functions:
            if before is None:
                continue
            read[before] += 1
            layer = writes.get(before) or writes.get(_past_norm(before))
            if layer and kind in ACTIVATIONS:
                activations.append((layer, ACTIVATIONS[kind]))
            if before not in known:
                known.add(before)
                waiting.append(before)
    return read, activations


def _past_norm(node: Any) -> Any:
    return node.next_functions[0][0] if "BatchNorm" in node.name() else node


def layer_types() -> tuple[type[torch.nn.Module], ...]:
    """The layers that can take a scale and a shift of their output's channels in."""
    import torch

    nn = torch.nn
    plain = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return (*plain, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def norm_types() -> tuple[type[torch.nn.Module], ...]:
    """Batch norms."""
    import torch

    return (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def _macs(layer: Any, given: torch.Tensor, output: torch.Tensor) -> int:
    per = layer.weight[0].numel()
    return int(per * (given if getattr(layer, "transposed", False) else output).numel())


def norm_affine(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and shift of a batch norm with statistics, in float64."""
    import torch

    spread = (norm.running_var.double() + norm.eps).rsqrt()
    scale = spread if norm.weight is None else norm.weight.detach().double() * spread
    start = torch.zeros_like(scale) if norm.bias is None else norm.bias.detach().double()
    return scale, start - norm.running_mean.double() * scale


def probed_affine(
    module: torch.nn.Module, shape: tuple[int, ...], axis: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The scale and shift of any module, found by trying; None where it does anything else.

    Args:
        module: left as it was.
        shape: of its input in a call.
        axis: of the channels.
    """
    import torch

    module = copy.deepcopy(module).double().eval()
    noise = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        zero, one, other = (module(x) for x in (torch.zeros_like(noise), torch.ones_like(noise), noise))
    if not all(isinstance(out, torch.Tensor) and out.shape == shape for out in (zero, one, other)):
        return None
    scale, shift = ((out.movedim(axis, 0).flatten(1)[:, 0]) for out in (one - zero, zero))
    wide = [1] * len(shape)
    wide[axis] = -1
    wanted = noise * scale.view(wide) + shift.view(wide)
    return (scale, shift) if torch.allclose(wanted, other, rtol=1e-6, atol=1e-9) else None


def fold(layer: Any, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """Give the layer, in place, an output of `scale` times what it was, plus `shift`; computed in float64."""
    import torch

    weight, kind = layer.weight.detach().double(), layer.weight.dtype
    if getattr(layer, "transposed", False):  # (in, out / groups, ...)
        parts = weight.unflatten(0, (layer.groups, -1))
        by = scale.view(layer.groups, 1, -1, *[1] * (weight.ndim - 2))
        scaled = (parts * by).flatten(0, 1)
    else:
        scaled = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    bias = shift if layer.bias is None else layer.bias.detach().double() * scale + shift
    flag = layer.weight.requires_grad
    layer.weight = torch.nn.Parameter(scaled.to(kind), requires_grad=flag)
    layer.bias = torch.nn.Parameter(bias.to(kind), requires_grad=flag)
