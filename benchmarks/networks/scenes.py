"""Pictures for the U-Net and the detector: handwritten digits pasted on crops of photographs.

The digits are scikit-learn's, the photographs scikit-image's; both are parted, so that no digit and no
photograph of a test scene was seen in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from sklearn.datasets import load_digits

PHOTOGRAPHS = {
    "train": "astronaut.png brick.png chelsea.png coins.png grass.png motorcycle_left.png retina.jpg",
    "test": "coffee.png camera.png gravel.png rocket.jpg",
}
TEST_DIGITS = 450


@dataclass(frozen=True)
class Scene:
    """A picture and what is on it.

    Attributes:
        pixels: shape (3, size, size), -1..1.
        ink: shape (1, size, size), 1 where a digit is, else 0.
        boxes: shape (digits, 4): left, top, right, bottom in pixels, around the ink.
        digits: shape (digits,), 0..9.
    """

    pixels: np.ndarray
    ink: np.ndarray
    boxes: np.ndarray
    digits: np.ndarray


def scenes(part: str, count: int, size: int, *, most: int) -> Iterator[Scene]:
    """Scenes with one to `most` digits, the same at every call.

    Args:
        part: "train" or "test".
        count: how many.
        size: pixels of a side.
        most: digits in one scene.
    """
    random = np.random.default_rng({"train": 0, "test": 1}[part])
    for _ in range(count):
        yield _scene(part, size, int(random.integers(1, most + 1)), random)


def negative(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Light and dark exchanged in half of the pictures."""
    signs = torch.randint(0, 2, (len(pictures), 1, 1, 1), generator=generator) * 2 - 1
    return pictures * signs


def _scene(part: str, size: int, wanted: int, random: np.random.Generator) -> Scene:
    pixels, ink = _background(part, size, random), np.zeros((size, size), np.float32)
    images, labels = _digits(part)
    boxes, digits = [], []
    for _ in range(4 * wanted):  # a digit that would touch another is given up, and another is tried
        if len(boxes) == wanted:
            break
        index, side = int(random.integers(len(images))), int(random.integers(18, 31))
        top, left = (int(random.integers(0, size - side + 1)) for _ in range(2))
        place = np.s_[top : top + side, left : left + side]
        if ink[place].any():
            continue
        cover = _enlarged(images[index], side)
        colour = _contrast(pixels[:, *place], random)
        pixels[:, *place] += cover * (colour[:, None, None] - pixels[:, *place])
        ink[place] = cover > 0.5
        rows, columns = (np.flatnonzero((cover > 0.5).any(axis)) for axis in (1, 0))
        boxes.append((left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1))
        digits.append(labels[index])
    return Scene(pixels, ink[None], np.array(boxes, np.float32), np.array(digits, np.int64))


def _contrast(under: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A colour well away from the mean of what lies under it, lighter or darker."""
    mean = under.mean()
    level = random.uniform(mean + 0.6, 1.2) if mean < 0 else random.uniform(-1.2, mean - 0.6)
    return np.clip(level + random.uniform(-0.2, 0.2, 3), -1, 1).astype(np.float32)


def _background(part: str, size: int, random: np.random.Generator) -> np.ndarray:
    """A square crop of a photograph, shrunk to the size, shape (3, size, size)."""
    photographs = _photographs(part)
    photograph = photographs[int(random.integers(len(photographs)))]
    side = int(random.integers(size, min(photograph.size) + 1))
    left, top = (int(random.integers(0, length - side + 1)) for length in photograph.size)
    crop = photograph.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return (np.asarray(crop, np.float32) / 127.5 - 1).transpose(2, 0, 1).copy()


def _enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """How much of each pixel the ink covers, 0..1, shape (side, side)."""
    image = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image, np.float32) * 1.2 - 0.1, 0, 1)


@cache
def _photographs(part: str) -> list[Image.Image]:
    folder = Path(skimage.__file__).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in PHOTOGRAPHS[part].split()]


@cache
def _digits(part: str) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[:TEST_DIGITS] if part == "test" else order[TEST_DIGITS:]
    return (pixels[order] / 16).reshape(-1, 8, 8).astype(np.float32), labels[order]
