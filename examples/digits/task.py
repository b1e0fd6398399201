"""scikit-learn's 1,797 handwritten digits on a ResNet-20.

    edgekit build examples/digits/task.py --target rpi4

The network is trained at the first use (twenty seconds of one core) and kept in the user's cache folder.
The 450 test digits are seen by `evaluate` alone: neither training nor calibration touches them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from platformdirs import user_cache_path
from resnet import ResNet
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

TEST = 450
EPOCHS = 8


@cache
def digits() -> tuple[TensorDataset, TensorDataset]:
    """The training and the test digits: images 3x32x32 in -1..1, labels 0..9."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    images = F.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    images = images.repeat(1, 3, 1, 1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, targets = images[order], torch.tensor(labels)[order]
    return TensorDataset(images[TEST:], targets[TEST:]), TensorDataset(images[:TEST], targets[:TEST])


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move the images by up to 3 pixels."""
    down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
    return torch.roll(images, (down, right), (2, 3))


class Augmented:
    """Batches of shifted training digits; every pass is shuffled anew, from a fixed seed."""

    def __init__(self, batch_size: int = 64) -> None:
        self.dataset = digits()[0]
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.dataset) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            self.dataset, self.batch_size, shuffle=True, drop_last=True, generator=self.generator
        )
        for images, labels in loader:
            yield shift(images, self.generator), labels


def train() -> ResNet:
    """Train from scratch: SGD with Nesterov momentum on a one-cycle schedule."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another are slower than one on a busy machine
    network = ResNet().to(memory_format=torch.channels_last)  # 1.8 times faster on a CPU
    batches = Augmented()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * len(batches))
    for _ in range(EPOCHS):
        for images, labels in batches:
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.set_num_threads(threads)
    return network.to(memory_format=torch.contiguous_format)


def model() -> ResNet:
    """The trained network; trained now if no copy made by this very code is in the cache."""
    sources = b"".join((Path(__file__).parent / name).read_bytes() for name in ("task.py", "resnet.py"))
    name = f"digits-{hashlib.sha256(sources).hexdigest()[:12]}.safetensors"
    weights = Path(os.environ.get("EDGEKIT_CACHE") or user_cache_path("edgekit")) / "examples" / name
    if weights.exists():
        network = ResNet()
        network.load_state_dict(load_file(weights))
        return network.eval()
    network = train().eval()
    weights.parent.mkdir(parents=True, exist_ok=True)
    partial = weights.with_suffix(".partial")
    save_file(network.state_dict(), partial)
    partial.replace(weights)
    return network


def example_inputs() -> tuple[Tensor, ...]:
    return (digits()[0][:1][0],)


def calibration_data() -> Iterator[tuple[Tensor, ...]]:
    images = digits()[0].tensors[0]
    return ((images[index : index + 1],) for index in range(256))


def training_data() -> Augmented:
    return Augmented()


def evaluate(predict) -> dict[str, object]:
    images, labels = (tensor.numpy() for tensor in digits()[1].tensors)
    correct = np.asarray(predict(images)).argmax(1) == labels
    per_class = {str(digit): float(correct[labels == digit].mean()) for digit in range(10)}
    return {"accuracy": float(correct.mean()), "per_class": per_class, "samples": len(labels)}
