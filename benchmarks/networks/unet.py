"""A small U-Net (Ronneberger et al. 2015): which pixels of a picture are handwriting.

    edgekit build benchmarks/networks/unet.py --target rpi4

The pictures are photographs with handwritten digits pasted on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import kept
import numpy as np
import scenes
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE, MOST = 64, 4
SCENES = {"train": 800, "test": 120}
EPOCHS = 10


class UNet(nn.Module):
    """Three resolutions down and up again, joined by concatenation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = _two_convolutions(3, width)
        self.down = nn.MaxPool2d(2)
        self.middle = _two_convolutions(width, 2 * width)
        self.deep = _two_convolutions(2 * width, 4 * width)
        self.to_middle = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.middle_again = _two_convolutions(4 * width, 2 * width)
        self.to_top = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.leave = _two_convolutions(2 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """Scores (batch, 1, height, width), above 0 for ink, of pictures (batch, 3, height, width)."""
        top = self.enter(picture)
        middle = self.middle(self.down(top))
        deep = self.deep(self.down(middle))
        middle = self.middle_again(torch.cat([self.to_middle(deep), middle], 1))
        return self.head(self.leave(torch.cat([self.to_top(middle), top], 1)))


def _two_convolutions(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers += [nn.Conv2d(channels, channels_out, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(channels_out), nn.ReLU()]
    return nn.Sequential(*layers)


@cache
def pictures(part: str) -> tuple[Tensor, Tensor]:
    """Pictures (scenes, 3, 64, 64) and their ink (scenes, 1, 64, 64)."""
    made = list(scenes.scenes(part, SCENES[part], SIZE, most=MOST))
    pixels, ink = (np.stack([getattr(scene, name) for scene in made]) for name in ("pixels", "ink"))
    return torch.from_numpy(pixels), torch.from_numpy(ink)


def model() -> nn.Module:
    """The trained network; trained at the first use, two minutes of one core."""

    def teach(network: nn.Module) -> None:
        kept.train(network, training_data(), F.binary_cross_entropy_with_logits, epochs=EPOCHS, rate=0.01)

    return kept.trained(UNet, teach, [__file__, scenes.__file__])


def example_inputs() -> tuple[Tensor, ...]:
    return (pictures("train")[0][:1],)


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    pixels = pictures("train")[0]
    return ((pixels[index : index + 1],) for index in range(128))


def training_data() -> kept.Batches:
    return kept.Batches(pictures("train"), 16)


def evaluate(predict) -> dict[str, object]:
    pixels, ink = (tensor.numpy() for tensor in pictures("test"))
    found, wanted = np.asarray(predict(pixels)) > 0, ink > 0
    return {"iou": float((found & wanted).sum() / (found | wanted).sum()), "samples": len(pixels)}
