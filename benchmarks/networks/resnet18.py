"""A ResNet-18 (He et al. 2015) for images of 224x224 pixels, to time; its weights are random.

The batch norms have the statistics of photographs, so that signals keep their size from layer to layer as in
a trained network. There are no labels: quality is fidelity to the float network.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import mobilenetv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = _conv_bn(channels_in, channels_out, 3, stride)
        self.second = _conv_bn(channels_out, channels_out, 3, 1)
        changes = stride != 1 or channels_in != channels_out
        self.shortcut = _conv_bn(channels_in, channels_out, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, of shape (batch, channels_out, height / stride, width / stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet18(nn.Module):
    """A stem, four stages of two blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        widths = (64, 64, 128, 256, 512)
        pairs = [(widths[i], widths[i + 1], 2 if i else 1) for i in range(4)]
        self.stages = nn.Sequential(
            *(layer for a, b, s in pairs for layer in (Block(a, b, s), Block(b, b, 1)))
        )
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of shape (batch, 1000) for images of shape (batch, 3, 224, 224)."""
        return self.head(torch.flatten(self.pool(self.stages(self.stem(image))), 1))


def _conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out, momentum=None))


@cache
def photographs() -> Tensor:
    """Crops of shape (64, 3, 224, 224)."""
    return mobilenetv2.crops("train")[0][:64]


def model() -> nn.Module:
    torch.manual_seed(0)
    network = ResNet18().train()
    with torch.no_grad():
        network(photographs()[:16])
    return network.eval()


def example_inputs() -> tuple[Tensor, ...]:
    return (photographs()[:1],)


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    return ((image[None],) for image in photographs())
