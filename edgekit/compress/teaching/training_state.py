"""What a training must know to go on after it was killed, as one safetensors file; no pickle.

The tensors are in the file's body, all else is JSON in its header. The file appears whole after each epoch.
Batches that the user's own generators shuffle cannot be stored: the passes that were done are read again
without training, which brings those generators to where they were.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.compress.teaching.held_out import Best
from edgekit.files import written_whole

if TYPE_CHECKING:
    import torch

HEADER = "edgekit"


def seed_all(seed: int) -> None:
    """Seed every global generator: the user's augmentation may draw from any of them."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything that an epoch leaves behind; it is read from and put back into these objects.

    Attributes:
        path: of the file.
        student: in training.
        adapters: modules trained with it.
        optimiser, schedule: as torch has them.
        best: so far.
    """

    path: Path
    student: torch.nn.Module
    adapters: torch.nn.Module
    optimiser: Any
    schedule: Any
    best: Best

    def save(self, epochs: int, seconds: float, over: str) -> None:
        """Write the state after so many epochs and seconds; `over` says why nothing more comes, else ''.

        Raises:
            OutsideFailure: the disk is full.
        """
        import torch
        from safetensors.torch import save_file

        tensors = {
            **_prefixed("student", self.student.state_dict()),
            **_prefixed("adapters", self.adapters.state_dict()),
            **_prefixed("best", self.best.state),
        }
        optimiser = self.optimiser.state_dict()
        scalars: dict[str, dict[str, Any]] = {}
        for index, entries in optimiser["state"].items():
            for name, value in entries.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimiser.{index}.{name}"] = value
                else:
                    scalars.setdefault(str(index), {})[name] = value
        tensors["random.torch"] = torch.get_rng_state()
        numpy_state: Any = np.random.get_state(legacy=True)
        tensors["random.numpy"] = torch.from_numpy(numpy_state[1].copy())
        words = {
            "epochs": epochs,
            "seconds": seconds,
            "over": over,
            "groups": optimiser["param_groups"],
            "scalars": scalars,
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if _is_plain(v)},
            "best": [self.best.epoch, self.best.scores],
            "numpy": [int(numpy_state[2]), int(numpy_state[3]), float(numpy_state[4])],
            "python": random.getstate(),
        }
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        with written_whole(self.path) as half:
            save_file(copies, half, metadata={HEADER: json.dumps(words)})

    def restore(self) -> tuple[int, float, str]:
        """Put the stored state back, but for the generators.

        Returns:
            The epochs done, the seconds they took, and why nothing more comes; (0, 0.0, "") where nothing is
            stored that can be read.
        """
        from safetensors import SafetensorError

        try:
            tensors, words = _read(self.path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return 0, 0.0, ""
        self.student.load_state_dict(_of("student", tensors))
        self.adapters.load_state_dict(_of("adapters", tensors))
        self.best.state = _of("best", tensors)
        self.best.epoch, scores = words["best"]
        self.best.scores[:] = [(first, second) for first, second in scores]
        entries: dict[int, dict[str, Any]] = {int(key): dict(v) for key, v in words["scalars"].items()}
        for name, tensor in _of("optimiser", tensors).items():
            index, _, entry = name.partition(".")
            entries.setdefault(int(index), {})[entry] = tensor
        self.optimiser.load_state_dict({"state": entries, "param_groups": words["groups"]})
        self.schedule.load_state_dict(words["schedule"])
        return words["epochs"], words["seconds"], words["over"]

    def restore_generators(self, batches: Iterable[Any], epochs: int) -> None:
        """Bring all generators to where they were: the user's own by reading, the global ones as stored."""
        import torch

        for _ in range(epochs):
            for _batch in batches:
                pass
        tensors, words = _read(self.path)
        torch.set_rng_state(tensors["random.torch"])
        position, has_gauss, gauss = words["numpy"]
        np.random.set_state(("MT19937", tensors["random.numpy"].numpy(), position, has_gauss, gauss))
        version, state, next_gauss = words["python"]
        random.setstate((version, tuple(state), next_gauss))


def digest_of_training(key: Mapping[str, Any], networks: Iterable[torch.nn.Module]) -> str:
    """What tells one training from another: its options, and the weights of all that take part."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode())
    for network in networks:
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(_bytes()).numpy().tobytes())
    return digest.hexdigest()[:24]


def _bytes() -> torch.dtype:
    import torch

    return torch.uint8


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[HEADER])  # noqa: SIM118 - no mapping


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _of(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    whole = f"{prefix}."
    return {name.removeprefix(whole): tensor for name, tensor in tensors.items() if name.startswith(whole)}


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
