"""The one module of our own that a compressed network may hold: two paths whose outputs are added."""

from __future__ import annotations

from typing import Any

import torch  # noqa: TID253 - a module class needs its base; this file is imported where torch is in use


class Levels(torch.nn.Module):
    """A main path and a branch for what it leaves out."""

    def __init__(self, main: torch.nn.Module, branch: torch.nn.Module) -> None:
        super().__init__()
        self.main, self.branch = main, branch

    def forward(self, x: torch.Tensor) -> Any:
        """The sum of both."""
        return self.main(x) + self.branch(x)

    def overlap(self) -> torch.Tensor:
        """The squared cosine between the kernels that the two paths compute, a scalar with a gradient."""
        one, other = (_kernel(path) for path in (self.main, self.branch))
        cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        return cosine.square()


def _kernel(path: torch.nn.Module) -> torch.Tensor:
    """The single convolution kernel (out, in, height, width) that a chain of convolutions amounts to."""
    kernel: torch.Tensor | None = None
    for layer in path.children():
        weight: Any = layer.weight
        kernel = weight if kernel is None else _compose(kernel, weight)
    if kernel is None:
        raise ValueError("a path without layers")
    return kernel


def _compose(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The kernel of one convolution after another: their convolution over places, summed over channels."""
    pad = (second.shape[2] - 1, second.shape[3] - 1)
    moved = torch.nn.functional.conv2d(first.transpose(0, 1), second.flip(2, 3), padding=pad)
    return moved.transpose(0, 1)
