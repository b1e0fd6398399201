"""The layers that can be decomposed, and how the pieces become torch modules again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a convolution moves over places, (vertical, horizontal)."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def vertical(self) -> Window:
        """The same for a convolution of one column."""
        return Window(
            stride=(self.stride[0], 1), padding=(self.padding[0], 0), dilation=(self.dilation[0], 1)
        )

    @property
    def horizontal(self) -> Window:
        """The same for a convolution of one row."""
        return Window(
            stride=(1, self.stride[1]), padding=(0, self.padding[1]), dilation=(1, self.dilation[1])
        )


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One of the layers that take a layer's place: a convolution without groups, or a linear layer.

    Attributes:
        weight: as torch holds it, (out, in) of a linear layer, (out, in, height, width) of a convolution.
        window: of a convolution.
        groups: of a convolution.
    """

    weight: torch.Tensor
    window: Window = Window()
    groups: int = 1

    def module(self, bias: torch.Tensor | None) -> torch.nn.Module:
        """The layer; `bias` is copied into it."""
        import torch

        weight = self.weight.detach().contiguous()
        out, inner = weight.shape[0], weight.shape[1]
        if weight.ndim == 2:
            made: Any = torch.nn.Linear(inner, out, bias=bias is not None, dtype=weight.dtype)
        else:
            made = torch.nn.Conv2d(
                inner * self.groups,
                out,
                (weight.shape[2], weight.shape[3]),
                stride=self.window.stride,
                padding=self.window.padding,
                dilation=self.window.dilation,
                groups=self.groups,
                bias=bias is not None,
                dtype=weight.dtype,
            )
        with torch.no_grad():
            made.weight.copy_(weight)
            if bias is not None:
                made.bias.copy_(bias)
        made.eval()
        module: torch.nn.Module = made
        return module


def chain(pieces: list[Piece], layer: Any) -> torch.nn.Sequential:
    """The pieces one after the other; the last has the layer's bias."""
    import torch

    *first, last = pieces
    return torch.nn.Sequential(*(piece.module(None) for piece in first), last.module(layer.bias))


def is_decomposable(layer: torch.nn.Module) -> bool:
    """Whether it is a dense layer or an ungrouped 2-D convolution that pads with zeros by a number."""
    import torch

    if type(layer) is torch.nn.Linear:
        return True
    return (
        type(layer) is torch.nn.Conv2d
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def window(layer: Any) -> Window:
    """The window of a convolution."""
    return Window(stride=layer.stride, padding=layer.padding, dilation=layer.dilation)


def is_pointwise(layer: Any) -> bool:
    """Whether each output is a sum over the channels of one place: a linear layer or a 1x1 convolution."""
    weight = layer.weight
    return weight.ndim == 2 or (tuple(weight.shape[2:]) == (1, 1) and layer.padding == (0, 0))
