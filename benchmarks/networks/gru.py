"""A voice detector with a recurrent layer: for each frame of 20 ms, whether somebody speaks.

    edgekit build benchmarks/networks/gru.py --target rpi4

Forty log-mel bands of 64 frames go in. A clip holds one word of eSpeak NG (`apt-get install espeak-ng`)
somewhere, or none, under noise of 0 to 15 dB; the label is where the clean word has energy.
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

FRAMES, BANDS, WINDOW, HOP = 64, 40, 640, 320
EPOCHS = 8


class VoiceDetector(nn.Module):
    """A convolution over time, a GRU, a score for each frame."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(BANDS, width, 5, padding=2), nn.BatchNorm1d(width), nn.ReLU())
        self.memory = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, bands: Tensor) -> Tensor:
        """Scores of shape (batch, 64, 1), above 0 for speech, for bands of shape (batch, 64, 40)."""
        sequence, _ = self.memory(self.front(bands.transpose(1, 2)).transpose(1, 2))
        return self.head(sequence)


@cache
def clips(part: str) -> tuple[Tensor, Tensor]:
    """Log-mel bands (clips, 64, 40) and whether each frame is speech (clips, 64, 1)."""
    found = kept.kept_arrays(_mix_all, [__file__, speech.__file__])
    return torch.from_numpy(found[f"{part}_bands"]), torch.from_numpy(found[f"{part}_speech"])


def _mix_all() -> dict[str, np.ndarray]:
    arrays = {}
    for seed, part in enumerate(("train", "test")):
        random = np.random.default_rng(seed)
        mixed = [_mixed(sound, random) for sound in speech.words(part)[0]]
        arrays[f"{part}_bands"], arrays[f"{part}_speech"] = map(np.stack, zip(*mixed, strict=True))
    return arrays


def _mixed(sound: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    clean = np.zeros(WINDOW + (FRAMES - 1) * HOP, np.float32)
    if random.random() < 0.9:
        start = int(random.integers(0, len(clean) - len(sound)))
        clean[start : start + len(sound)] = sound
    level = 0.07 * 10 ** (-random.uniform(0, 15) / 20)  # a word's root mean square is near 0.07
    heard = random.uniform(0.3, 3) * (clean + level * speech.noise(random, len(clean)))
    frames = np.lib.stride_tricks.sliding_window_view(clean, WINDOW)[::HOP]
    spoken = np.sqrt(np.square(frames).mean(1, keepdims=True)) > 0.01
    bands = speech.log_mel(heard.astype(np.float32), window=WINDOW, hop=HOP, bands=BANDS)
    return bands / np.float32(4), spoken.astype(np.float32)


def model() -> nn.Module:
    """The trained network; trained at the first use, half a minute of one core."""

    def teach(network: nn.Module) -> None:
        kept.train(network, training_data(), F.binary_cross_entropy_with_logits, epochs=EPOCHS, rate=0.005)

    return kept.trained(VoiceDetector, teach, [__file__, speech.__file__])


def example_inputs() -> tuple[Tensor, ...]:
    return (clips("train")[0][:1],)


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    bands = clips("train")[0]
    return ((bands[index : index + 1],) for index in range(0, len(bands), max(1, len(bands) // 200)))


def training_data() -> kept.Batches:
    return kept.Batches(clips("train"), 32)


def evaluate(predict) -> dict[str, object]:
    bands, spoken = (tensor.numpy() for tensor in clips("test"))
    heard = np.asarray(predict(bands)) > 0
    correct = {"speech": heard[spoken > 0], "no speech": ~heard[spoken == 0]}
    per_class = {name: float(hits.mean()) for name, hits in correct.items()}
    return {
        "accuracy": float(np.mean(list(per_class.values()))),
        "per_class": per_class,
        "samples": len(bands),
    }
