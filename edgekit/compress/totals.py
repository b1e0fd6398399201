"""What a whole torch network holds and computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.task.call import call_module

if TYPE_CHECKING:
    import torch


def params_of(network: torch.nn.Module) -> int:
    """Weight elements, each tensor once."""
    return sum(parameter.numel() for parameter in network.parameters())


def total_work(network: torch.nn.Module, example: Mapping[str, np.ndarray]) -> int:
    """Multiply-accumulates of convolutions and linear layers in one call."""
    import torch

    total = 0

    def add(layer: Any, _inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * layer.weight[0].numel()

    heavy = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)
    handles = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, heavy)]
    try:
        call_module(network, tuple(example.values()))
    finally:
        for handle in handles:
            handle.remove()
    return total
