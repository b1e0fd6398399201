"""What the networks of the conversion matrix share: batches, training, and a place where the results stay."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Loss = Callable[..., Tensor]


class Batches:
    """Batches of (input, label), shuffled anew at every pass, from a fixed seed.

    Args:
        tensors: inputs, then labels, along the first axis.
        size: samples in one batch; a last one that is smaller is left out.
        vary: changes the inputs of a batch at random; None leaves them.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        size: int,
        vary: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        self.tensors, self.size, self.vary = tuple(tensors), size, vary
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.tensors[0]) // self.size

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(len(self.tensors[0]), generator=self.generator)
        for part in order.split(self.size)[: len(self)]:
            inputs, *labels = (tensor[part] for tensor in self.tensors)
            yield (self.vary(inputs, self.generator) if self.vary else inputs, *labels)


def train(network: nn.Module, batches: Batches, loss: Loss, *, epochs: int, rate: float) -> None:
    """Train in place: AdamW on a one-cycle schedule, one thread, a fixed seed.

    Args:
        network: its weights at the start were drawn by the caller.
        batches: what one epoch passes over.
        loss: from (output, *labels) to a scalar.
        epochs: passes.
        rate: peak of the schedule.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another are slower than one on a busy machine
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * len(batches))
    for _ in range(epochs):
        for inputs, *labels in batches:
            value = loss(network(inputs), *labels)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
    torch.set_num_threads(threads)


def trained(
    make: Callable[[], nn.Module], teach: Callable[[nn.Module], None], sources: Sequence[str]
) -> nn.Module:
    """The network in evaluation mode; trained now if the cache holds no copy made by these very sources.

    Args:
        make: the untrained network; its random numbers come from seed 0.
        teach: trains it in place.
        sources: Python files that determine the result, the network's own first.
    """
    torch.manual_seed(0)
    network, weights = make(), place(sources, ".safetensors")
    if weights.exists():
        network.load_state_dict(load_file(weights))
        return network.eval()
    teach(network)
    with_partial(weights, lambda partial: save_file(network.state_dict(), partial))
    return network.eval()


def kept_arrays(make: Callable[[], dict[str, np.ndarray]], sources: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays that take long to make, from the cache if these very sources made them."""
    path = place(sources, ".npz")
    if not path.exists():
        arrays = make()
        with_partial(path, lambda partial: np.savez_compressed(partial, **arrays))
    with np.load(path) as found:
        return dict(found)


def place(sources: Sequence[str], ending: str) -> Path:
    """Where the cache keeps what these sources make."""
    root = Path(os.environ.get("EDGEKIT_CACHE") or user_cache_path("edgekit")) / "benchmarks"
    root.mkdir(parents=True, exist_ok=True)
    text = b"".join(Path(source).read_bytes() for source in (*sources, __file__))
    return root / f"{Path(sources[0]).stem}-{hashlib.sha256(text).hexdigest()[:12]}{ending}"


def with_partial(path: Path, write: Callable[[Path], object]) -> None:
    """Let a file appear whole."""
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    write(partial)
    partial.replace(path)
