"""A small vision transformer (Dosovitskiy et al. 2020): which digit is handwritten on a picture.

    edgekit build benchmarks/networks/vit.py --target rpi4

The digits are scikit-learn's, as in examples/digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import kept
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

TEST = 450
EPOCHS = 32


class Block(nn.Module):
    """Self-attention and a perceptron, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of shape (batch, tokens, width) to others of that shape."""
        tokens = tokens + self.project(self.attend(self.norm1(tokens)))
        return tokens + self.narrow(F.gelu(self.widen(self.norm2(tokens))))

    def attend(self, tokens: Tensor) -> Tensor:
        """Every token's mean of the values, weighted by how well its query fits the keys."""
        batch, count, width = tokens.shape
        heads = self.qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind(0))
        return mixed.transpose(1, 2).reshape(batch, count, width)


class Vit(nn.Module):
    """Patches of 4x4 pixels, four blocks, a class token."""

    def __init__(
        self, size: int = 32, patch: int = 4, width: int = 128, depth: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of shape (batch, 10) for images of shape (batch, 3, 32, 32)."""
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.places
        return self.head(self.norm(self.blocks(tokens))[:, 0])


@cache
def digits(part: str) -> tuple[Tensor, Tensor]:
    """Images 3x32x32 in -1..1 and labels, of the training or the test digits."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    images = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    order = order[:TEST] if part == "test" else order[TEST:]
    return images[order].repeat(1, 3, 1, 1), torch.tensor(labels)[order]


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move the images by up to 3 pixels."""
    down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
    return torch.roll(images, (down, right), (2, 3))


def model() -> nn.Module:
    """The trained network; trained at the first use, three minutes of one core."""

    def teach(network: nn.Module) -> None:
        kept.train(network, training_data(), F.cross_entropy, epochs=EPOCHS, rate=0.001)

    return kept.trained(Vit, teach, [__file__])


def example_inputs() -> tuple[Tensor, ...]:
    return (digits("train")[0][:1],)


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    images = digits("train")[0]
    return ((images[index : index + 1],) for index in range(200))


def training_data() -> kept.Batches:
    return kept.Batches(digits("train"), 64, shift)


def evaluate(predict) -> dict[str, object]:
    images, labels = (tensor.numpy() for tensor in digits("test"))
    correct = np.asarray(predict(images)).argmax(1) == labels
    per_class = {str(digit): float(correct[labels == digit].mean()) for digit in range(10)}
    return {"accuracy": float(correct.mean()), "per_class": per_class, "samples": len(labels)}
