"""A grid detector (Redmon et al. 2016): the digits of a picture and the boxes around them.

    edgekit build benchmarks/networks/detector.py --target rpi4

Each cell of 8x8 pixels gives scores and one box. The boxes are decoded and pruned by non-maximum suppression
outside the network, in numpy, as on a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import kept
import numpy as np
import scenes
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE, CELL, MOST = 96, 8, 6
GRID = SIZE // CELL
USUAL = 20.0  # pixels of a box's side at which its logarithm is 0
SCENES = {"train": 2400, "test": 150}
EPOCHS = 16
output_names = ("scores", "boxes")


class Detector(nn.Module):
    """Convolutions down to the grid, three residual blocks, two heads."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        channels = [3, width, 2 * width, 4 * width]
        self.down = nn.Sequential(*(_conv_bn_relu(a, b, 2) for a, b in pairwise(channels)))
        self.blocks = nn.ModuleList(_conv_bn_relu(4 * width, 4 * width, 1) for _ in range(3))
        self.scores, self.boxes = nn.Conv2d(4 * width, 11, 1), nn.Conv2d(4 * width, 4, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and boxes of the cells, for pictures of shape (batch, 3, 96, 96).

        Returns:
            Scores (batch, 11, 12, 12): whether a digit's middle lies here, and which digit it is; boxes
            (batch, 4, 12, 12): the middle, -0.5..0.5 cells from the cell's, and the logarithms of width and
            height over 20 pixels.
        """
        cells = self.down(picture)
        for block in self.blocks:
            cells = cells + block(cells)
        return self.scores(cells), self.boxes(cells)


def _conv_bn_relu(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


@cache
def pictures(part: str) -> list[scenes.Scene]:
    """The scenes of one part, "train" or "test"."""
    return list(scenes.scenes(part, SCENES[part], SIZE, most=MOST))


@cache
def targets() -> tuple[Tensor, Tensor]:
    """Training pictures (scenes, 3, 96, 96) and what the grid should say of them (scenes, 6, 12, 12).

    The six are: whether a middle lies in the cell, which digit, and the box as `Detector` gives it.
    """
    wanted = np.zeros((SCENES["train"], 6, GRID, GRID), np.float32)
    for grid, scene in zip(wanted, pictures("train"), strict=True):
        first, last = scene.boxes[:, :2], scene.boxes[:, 2:]
        middles, sides = (first + last) / 2, last - first
        for middle, side, digit in zip(middles / CELL, sides, scene.digits, strict=True):
            column, row = middle.astype(int)
            grid[:, row, column] = (1, digit, *(middle - (column, row) - 0.5), *np.log(side / USUAL))
    pixels = np.stack([scene.pixels for scene in pictures("train")])
    return torch.from_numpy(pixels), torch.from_numpy(wanted)


def loss(found: tuple[Tensor, Tensor], wanted: Tensor) -> Tensor:
    """Cross entropy of what lies where, plus the mean absolute error of the boxes that there are."""
    scores, boxes = found
    here = wanted[:, 0]
    there = F.binary_cross_entropy_with_logits(scores[:, 0], here, pos_weight=torch.tensor(5.0))
    which = F.cross_entropy(scores[:, 1:], wanted[:, 1].long(), reduction="none")
    where = (boxes - wanted[:, 2:]).abs().mean(1)
    return there + ((which + where) * here).sum() / here.sum().clamp(min=1)


def decode(scores: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes of one picture that survive non-maximum suppression, the surest first.

    Args:
        scores: of shape (11, 12, 12).
        boxes: of shape (4, 12, 12).

    Returns:
        Corners in pixels (found, 4), digits (found,), and how sure each is, 0..1 (found,).
    """
    rows, columns = np.mgrid[:GRID, :GRID] + 0.5
    middles = np.stack([columns + boxes[0], rows + boxes[1]], -1).reshape(-1, 2) * CELL
    sides = np.exp(np.clip(boxes[2:], -3, 3)).reshape(2, -1).T * USUAL
    corners = np.concatenate([middles - sides / 2, middles + sides / 2], 1)
    sure, digits = 1 / (1 + np.exp(-scores[0].reshape(-1))), scores[1:].reshape(10, -1).argmax(0)
    kept_cells: list[int] = []
    for cell in np.argsort(-sure, kind="stable"):
        if sure[cell] < 0.05:
            break
        if all(overlap(corners[cell], corners[other]) < 0.4 for other in kept_cells):
            kept_cells.append(int(cell))
    return corners[kept_cells], digits[kept_cells], sure[kept_cells]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / (float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common)


def model() -> nn.Module:
    """The trained network; trained at the first use, two minutes of one core."""

    def teach(network: nn.Module) -> None:
        kept.train(network, training_data(), loss, epochs=EPOCHS, rate=0.01)

    return kept.trained(Detector, teach, [__file__, scenes.__file__])


def example_inputs() -> tuple[Tensor, ...]:
    return (targets()[0][:1],)


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    pixels = targets()[0]
    return ((pixels[index : index + 1],) for index in range(128))


def training_data() -> kept.Batches:
    return kept.Batches(targets(), 32, scenes.negative)


def evaluate(predict) -> dict[str, object]:
    """Average precision at an overlap of 0.5, all digits together; a box with the wrong digit is wrong."""
    made = pictures("test")
    found = [decode(*grids) for grids in zip(*predict(np.stack([s.pixels for s in made])), strict=True)]
    sure = np.concatenate([scene[2] for scene in found])
    hits = [_hits(boxes, digits, scene) for (boxes, digits, _), scene in zip(found, made, strict=True)]
    right = np.concatenate(hits)
    right = right[np.argsort(-sure, kind="stable")]
    recall = np.cumsum(right) / sum(len(scene.digits) for scene in made)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return {"map": float((np.diff(recall, prepend=0) * precision).sum()), "samples": len(made)}


def _hits(boxes: np.ndarray, digits: np.ndarray, scene: scenes.Scene) -> np.ndarray:
    """For each box, surest first, whether it finds a digit of the scene that none before it found."""
    left, hits = set(range(len(scene.digits))), []
    for box, digit in zip(boxes, digits, strict=True):
        fits = [i for i in left if digit == scene.digits[i] and overlap(box, scene.boxes[i]) >= 0.5]
        hits.append(bool(fits))
        left -= set(fits[:1])
    return np.array(hits, bool)
