"""A MobileNetV2 of half the width (Sandler et al. 2018): which digit is handwritten on a picture.

    edgekit build benchmarks/networks/mobilenetv2_half.py --target rpi4

The digits are scikit-learn's, as in examples/digits.
"""

from __future__ import annotations

import kept
import torch.nn.functional as F
from torch import Tensor, nn
from vit import calibration_data, evaluate, example_inputs, training_data

__all__ = ["calibration_data", "evaluate", "example_inputs", "model", "training_data"]
EPOCHS = 30
# Expansion, output channels at full width, blocks, stride of the first: at 32x32 pixels.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 2, 2))


def convolution(inner: int, outer: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inner, outer, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
    ]


class Inverted(nn.Module):
    """Widen, filter every channel by itself, narrow; beside a shortcut where the shapes agree."""

    def __init__(self, inner: int, outer: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        layers = [*convolution(inner, wide, 1), nn.ReLU6()] if expansion > 1 else []
        layers += [*convolution(wide, wide, 3, stride, wide), nn.ReLU6(), *convolution(wide, outer, 1)]
        self.layers, self.shortcut = nn.Sequential(*layers), stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Stem, inverted residual blocks, a wide 1x1 convolution, a head."""

    def __init__(self, width: float = 0.5, last: int = 640) -> None:
        super().__init__()
        channels = 16
        blocks: list[nn.Module] = [*convolution(3, channels, 3), nn.ReLU6()]
        for expansion, outer, count, stride in STAGES:
            narrow = max(8, int(outer * width + 4) // 8 * 8)
            for index in range(count):
                blocks.append(Inverted(channels, narrow, stride if index == 0 else 1, expansion))
                channels = narrow
        self.blocks = nn.Sequential(*blocks, *convolution(channels, last, 1), nn.ReLU6())
        self.head = nn.Linear(last, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of shape (batch, 10) for images of shape (batch, 3, 32, 32)."""
        return self.head(self.blocks(image).mean((2, 3)))


def model() -> nn.Module:
    """The trained network; trained at the first use, two minutes of one core."""

    def teach(network: nn.Module) -> None:
        kept.train(network, training_data(), F.cross_entropy, epochs=EPOCHS, rate=0.003)

    return kept.trained(MobileNetV2, teach, [__file__])
