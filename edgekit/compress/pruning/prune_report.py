"""What removing channels did to each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.result import Change

if TYPE_CHECKING:
    import torch

MOST_NAMES = 6


def changes_of(
    before: torch.nn.Module, after: torch.nn.Module, old: Mapping[str, int], new: Mapping[str, int]
) -> tuple[Change, ...]:
    """A change for each layer that has fewer channels.

    Args:
        before: the network.
        after: the same with fewer channels.
        old: multiply-accumulates of its convolutions and linear layers, by name.
        new: the same of `after`.
    """
    found = []
    for name in old:
        first: Any = before.get_submodule(name)
        second: Any = after.get_submodule(name)
        if first.weight.shape != second.weight.shape:
            found.append(
                Change(
                    layer=name,
                    what=_what(first.weight.shape, second.weight.shape),
                    params=(_params(first), _params(second)),
                    macs=(old[name], new[name]),
                )
            )
    return tuple(found)


def names_of(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown


def _what(old: Sequence[int], new: Sequence[int]) -> str:
    if old[0] != new[0]:
        return f"{new[0]} of {old[0]} channels"
    return f"all {old[0]} channels, {new[1]} of {old[1]} inputs"


def _params(layer: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())
