"""DS-CNN (Zhang et al. 2017, "Hello Edge", size M-like): which of ten keywords was said, or another, or none.

    edgekit build benchmarks/networks/dscnn.py --target rpi4

Ten mel-frequency cepstral coefficients of 49 frames (40 ms, every 20 ms) go in; they are made outside the
network. The words are spoken by eSpeak NG (`apt-get install espeak-ng`), under noise of 5 to 25 dB.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import kept
import numpy as np
import speech
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = (*speech.KEYWORDS, "unknown", "silence")
EPOCHS = 12
COPIES = {"train": 2, "test": 1}  # how often each word is mixed with noise


class DsCnn(nn.Module):
    """A convolution, then four depthwise separable ones."""

    def __init__(self, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        layers = [*_conv_bn_relu(1, width, (10, 4), stride=2, padding=(5, 1))]
        for _ in range(blocks):
            layers += _conv_bn_relu(width, width, 3, padding=1, groups=width)
            layers += _conv_bn_relu(width, width, 1)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, coefficients: Tensor) -> Tensor:
        """Scores of shape (batch, 12) for coefficients of shape (batch, 1, 49, 10)."""
        return self.head(torch.flatten(self.pool(self.features(coefficients)), 1))


def _conv_bn_relu(channels_in: int, channels_out: int, kernel: object, **more: object) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, bias=False, **more)
    return [conv, nn.BatchNorm2d(channels_out), nn.ReLU()]


@cache
def recordings(part: str) -> tuple[Tensor, Tensor]:
    """Coefficients (samples, 1, 49, 10) and class numbers of the training or test words under noise."""
    found = kept.kept_arrays(_record_all, [__file__, speech.__file__])
    return torch.from_numpy(found[f"{part}_features"]), torch.from_numpy(found[f"{part}_labels"])


def _record_all() -> dict[str, np.ndarray]:
    arrays = {}
    for seed, (part, copies) in enumerate(COPIES.items()):
        random = np.random.default_rng(seed)
        features, labels = [], []
        for sound, number in zip(*speech.words(part), strict=True):
            for _ in range(copies):
                silent = random.random() < 0.08
                heard = _recorded(np.zeros_like(sound) if silent else sound, random)
                features.append(coefficients(heard)[None])
                labels.append(CLASSES.index("silence") if silent else int(number))
        arrays[f"{part}_features"], arrays[f"{part}_labels"] = np.stack(features), np.array(labels)
    return arrays


def _recorded(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The word up to 100 ms early or late, as loud as it may be, under noise 5 to 25 dB below its mean."""
    late = int(random.integers(-speech.RATE // 10, speech.RATE // 10 + 1))
    level = 0.07 * 10 ** (-random.uniform(5, 25) / 20)  # a word's root mean square is near 0.07
    return random.uniform(0.5, 2) * (np.roll(sound, late) + level * speech.noise(random, len(sound)))


def coefficients(sound: np.ndarray) -> np.ndarray:
    """Of one second, shape (49, 10), brought to a spread near 1."""
    return speech.mfcc(sound, window=640, hop=320, bands=40, kept=10) / np.float32(10)


def model() -> nn.Module:
    """The trained network; trained at the first use, a minute of one core."""

    def teach(network: nn.Module) -> None:
        kept.train(network, training_data(), F.cross_entropy, epochs=EPOCHS, rate=0.01)

    return kept.trained(DsCnn, teach, [__file__, speech.__file__])


def example_inputs() -> tuple[Tensor, ...]:
    return (recordings("train")[0][:1],)


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    features = recordings("train")[0]
    return ((features[index : index + 1],) for index in range(0, len(features), len(features) // 200))


def training_data() -> kept.Batches:
    return kept.Batches(recordings("train"), 64)


def evaluate(predict) -> dict[str, object]:
    features, labels = (tensor.numpy() for tensor in recordings("test"))
    correct = np.asarray(predict(features)).argmax(1) == labels
    per_class = {name: float(correct[labels == number].mean()) for number, name in enumerate(CLASSES)}
    return {"accuracy": float(correct.mean()), "per_class": per_class, "samples": len(labels)}
