"""Remove channels from a torch network: which layers may lose some, which lose them together, and a copy."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgekit.errors import BadInput

if TYPE_CHECKING:
    import torch

    Tensors = tuple[torch.Tensor, ...]
    Scores = Mapping[str, torch.Tensor]

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
ACTIVATION = re.compile(r"\((Gelu|Relu|Silu|Hardswish|Tanh|Sigmoid|Elu)Backward")  # as autograd names them
LINEAR = re.compile(r"^_Reshape_|\((Addmm|T)Backward")  # what a linear layer over tokens is made of
HEADS = ("heads", "num_heads", "n_heads", "nhead", "n_head")


def narrowable(model: torch.nn.Module, inputs: Tensors) -> dict[str, int]:
    """The layers that may lose output channels, with their widths, by name.

    Left alone are layers that write the network's outputs, attention and recurrent layers with all that share
    a width with them (a perceptron beside the attention may lose hidden channels), and layers whose width the
    forward function relies on (a written-out reshape, say).
    """
    layers = _unread_aside(model, inputs)
    widths = {name: width_of(layer) for name, layer in model.named_modules() if name in layers}
    groups = {name: frozenset(group) for name, group in layers.items()}
    if not widths or _survives(model, inputs, widths):
        return widths
    sound = [
        group for group in set(groups.values()) if _survives(model, inputs, {n: widths[n] for n in group})
    ]
    return {name: width for name, width in widths.items() if groups[name] in sound}


def narrow_by(
    model: torch.nn.Module, inputs: Tensors, kept: Mapping[str, int], scores: Scores | None = None
) -> torch.nn.Module:
    """A copy whose layers have fewer output channels, the ones of least importance gone.

    Args:
        model: left as it was.
        inputs: one example call.
        kept: the channels to keep, by the layer's name; the other layers keep theirs.
        scores: the importance of each channel, by the root of the group (see `groups_of`) that loses it; the
            channels' L1 norm when left out.

    Raises:
        BadInput: the outputs would have other shapes.
    """
    import torch_pruning as tp

    narrow = copy.deepcopy(model).eval()
    layers = {name: layer for name, layer in narrow.named_modules() if isinstance(layer, heavy_types())}
    names = {module: name for name, module in narrow.named_modules()}
    tp.pruner.BasePruner(
        narrow,
        inputs,
        importance=(
            tp.importance.GroupMagnitudeImportance(p=1)
            if scores is None
            else lambda group: scores.get(names[group[0].dep.target.module])
        ),
        pruning_ratio=0.0,
        pruning_ratio_dict={layers[name]: _ratio(width_of(layers[name]), kept[name]) for name in kept},
        global_pruning=False,
        ignored_layers=[layer for name, layer in layers.items() if name not in kept],
    ).step()
    if _output_shapes(narrow, inputs) != _output_shapes(model, inputs):
        raise BadInput("narrowing changes the shapes of the outputs", where="prune")
    for parameter in narrow.parameters():
        parameter.grad = None
    return narrow


def groups_of(model: torch.nn.Module, inputs: Tensors, layers: Mapping[str, int]) -> tuple[Any, list[Any]]:
    """torch-pruning's graph of a network, and its groups of what loses channels together, whole.

    Args:
        model: is traced, not changed.
        inputs: one example call.
        layers: of `narrowable`; all groups that hold none of them, or one that is heavy and is none of them,
            are left out.

    Returns:
        The graph; the groups, each with its root first, as `narrow_by` meets them.
    """
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, example_inputs=inputs)
    chosen = {module for name, module in model.named_modules() if name in layers}
    others = [m for m in model.modules() if isinstance(m, heavy_types()) and m not in chosen]
    roots = [tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, tp.ops.TORCH_LSTM]
    groups = graph.get_all_groups(ignored_layers=others, root_module_types=roots)
    return graph, [group for group in groups if chosen.intersection(i.dep.target.module for i in group)]


def heavy_types() -> tuple[type[torch.nn.Module], ...]:
    """The layers that hold the work: plain convolutions and matrix products."""
    import torch

    return (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)


def width_of(layer: Any) -> int:
    """The output channels of a layer of `heavy_types`."""
    return int(layer.out_channels if hasattr(layer, "out_channels") else layer.out_features)


def _ratio(width: int, kept: int) -> float:
    """The pruning ratio that leaves exactly `kept`; torch-pruning truncates, hence the 0.01."""
    return max(0.0, 1 - (kept + 0.01) / width)


def _unread_aside(model: torch.nn.Module, inputs: Tensors) -> dict[str, list[str]]:
    """The layers that another reads and that share no width with attention or recurrent layers.

    Returns:
        For each, by name, the names of the layers that lose channels with it.
    """
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(model, example_inputs=inputs)
    fixed, names = set(_fixed_modules(model)), {module: name for name, module in model.named_modules()}
    found = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, heavy_types()) or layer not in graph.module2node:
            continue
        group = _group(graph, layer)
        touched = [layer, *(item.dep.target.module for item in group)]
        if _is_read(graph, group) and (_is_hidden(group) or not fixed.intersection(touched)):
            writers = [i.dep.target.module for i in group if graph.is_out_channel_pruning_fn(i.dep.handler)]
            found[name] = [names[m] for m in writers if isinstance(m, heavy_types())]
    return {name: [other for other in group if other in found] for name, group in found.items()}


def _group(graph: Any, layer: torch.nn.Module) -> list[Any]:
    """What loses channels with a layer; nothing where torch-pruning cannot follow them (into a GRU, say)."""
    try:
        return list(graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, [0]))
    except Exception:  # noqa: BLE001 - of any kind, an IndexError mostly
        return []


def _is_read(graph: Any, group: Any) -> bool:
    """Whether another layer reads these channels, and they are not the network's outputs."""
    readers = [
        i
        for i in group
        if not graph.is_out_channel_pruning_fn(i.dep.handler)
        and isinstance(i.dep.target.module, heavy_types())
    ]
    return bool(readers) and not any("Output" in type(i.dep.target.module).__name__ for i in group)


def _is_hidden(group: Any) -> bool:
    """Whether nothing but an activation stands between two linear layers, as in a transformer's perceptron.

    What attention does with heads (reshape, permute, products) would be in the group.
    """
    import torch

    first, *others = [item.dep.target.module for item in group]
    written = [str(module) for module in others if not isinstance(module, torch.nn.Linear)]
    return (
        isinstance(first, torch.nn.Linear)
        and any(ACTIVATION.search(text) for text in written)
        and all(ACTIVATION.search(text) or LINEAR.search(text) for text in written)
    )


def _fixed_modules(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Attention and recurrent modules with all that is inside: their forward relies on the widths."""
    import torch

    for name, module in model.named_modules():
        called = (name.rpartition(".")[2], type(module).__name__)
        written_out = any(ATTENTION.search(text) for text in called) and not hasattr(module, "__len__")
        if (
            written_out
            or isinstance(module, torch.nn.MultiheadAttention | torch.nn.RNNBase | torch.nn.RNNCellBase)
            or any(isinstance(getattr(module, word, None), int) for word in HEADS)
        ):
            yield from module.modules()


def _survives(model: torch.nn.Module, inputs: Tensors, widths: Mapping[str, int]) -> bool:
    """Whether the network still runs and keeps its output shapes with half of these channels."""
    try:
        narrow_by(model, inputs, {name: max(1, width // 2) for name, width in widths.items()})
    except Exception:  # noqa: BLE001 - whatever it raises, these layers are left alone
        return False
    return True


def _output_shapes(model: torch.nn.Module, inputs: Tensors) -> list[tuple[int, ...]]:
    import torch
    from torch.utils import _pytree as pytree

    with torch.no_grad():
        leaves = pytree.tree_leaves(model(*inputs))
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]
