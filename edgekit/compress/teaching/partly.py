"""Train a part of a network at a time, or keep a part of what it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def layers_with_weights(network: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
    """The parameters of each layer that has some of its own, in the order the network lists its layers."""
    found = [[p for p in module.parameters(recurse=False) if p.requires_grad] for module in network.modules()]
    return [parameters for parameters in found if parameters]


def unfreeze(layers: list[list[torch.nn.Parameter]], epoch: int, epochs: int) -> int:
    """Let the last layers be trained, more of them in each epoch (Howard & Ruder 2018).

    What is frozen keeps its weights; statistics of batch norms follow the data all the same, for a pruned
    network has none that fit.

    Args:
        layers: as `layers_with_weights` gives them before anything is frozen.
        epoch: from 0 on; from `epochs` on all are trained.
        epochs: in which layers join in.

    Returns:
        How many layers are trained.
    """
    many = len(layers) if epoch >= epochs else max(1, len(layers) * (epoch + 1) // (epochs + 1))
    for place, parameters in enumerate(layers):
        for parameter in parameters:
            parameter.requires_grad_(place >= len(layers) - many)
            if not parameter.requires_grad:
                parameter.grad = None
    return many


@contextmanager
def recomputed(network: torch.nn.Module) -> Iterator[int]:
    """The blocks of the network's outermost sequences computed again in the backward pass (Chen et al. 2016).

    The results are the same: batch norms note their batch once. Yields the number of blocks.
    """
    blocks = list(_blocks(network))
    for block in blocks:
        block.forward = partial(_checkpointed, block, block.forward)
    try:
        yield len(blocks)
    finally:
        for block in blocks:
            del block.forward


def _blocks(network: torch.nn.Module) -> Iterator[Any]:
    import torch

    if isinstance(network, torch.nn.Sequential):
        yield from (child for child in network.children() if any(True for _ in child.parameters()))
        return
    for child in network.children():
        yield from _blocks(child)


def _checkpointed(block: torch.nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    import torch
    from torch.utils.checkpoint import checkpoint

    if not torch.is_grad_enabled():
        return forward(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _noting_nothing(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _noting_nothing(block: torch.nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics as before, and do not note them a second time."""
    norms: list[Any] = [
        m for m in block.modules() if m.training and getattr(m, "running_mean", None) is not None
    ]
    kept = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
