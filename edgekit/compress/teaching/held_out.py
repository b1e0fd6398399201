"""How close a student is to the original on inputs it is not taught with, and its best weights so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.compress.teaching.losses import classifies
from edgekit.signal import snr_db

if TYPE_CHECKING:
    import torch

    Inputs = tuple[torch.Tensor, ...]

Score = tuple[float, float]
WORST: Score = (-math.inf, 0.0)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges by fidelity to the original: the task's `evaluate` may see test data, and chooses no epoch.

    Attributes:
        inputs: of the calls that are judged.
        expected: the original's outputs for them, flattened.
        agrees: whether the outputs are class scores that tell these inputs apart. Then it is their divergence
            that counts, for one call more or less that agrees is chance among a few; else it is the
            signal-to-noise ratio, dB.
    """

    inputs: Sequence[Inputs]
    expected: Sequence[Sequence[np.ndarray]]
    agrees: bool

    def score(self, network: torch.nn.Module) -> Score:
        """How close the network is, in evaluation mode, larger is closer; and the figure to show."""
        got = [_outputs(network, one) for one in self.inputs]
        if not all(np.isfinite(array).all() for arrays in got for array in arrays if array.dtype.kind == "f"):
            return WORST
        if not self.agrees:
            flat = ([array for arrays in side for array in arrays] for side in (self.expected, got))
            ratio = snr_db(*flat)
            return ratio, ratio
        wanted, found = (np.concatenate([arrays[0] for arrays in side]) for side in (self.expected, got))
        return -_divergence(wanted, found), float((wanted.argmax(1) == found.argmax(1)).mean())

    def words(self, score: Score) -> str:
        """The score as people read it."""
        return f"{score[1]:.1%} agreement" if self.agrees else f"{score[1]:.1f} dB"


def judge_of(original: torch.nn.Module, inputs: Sequence[Inputs]) -> Judge:
    """A judge by these inputs; the original stays as it was."""
    with _evaluating(original):
        expected = [_outputs(original, one) for one in inputs]
        scores = classifies(original, inputs[0])
        agrees = scores and len(np.unique(np.concatenate([arrays[0] for arrays in expected]).argmax(1))) > 1
    return Judge(inputs=inputs, expected=expected, agrees=agrees)


@dataclass(kw_only=True)
class Best:
    """The weights of the epoch that came closest; those of the start, epoch 0, are in the running.

    Attributes:
        judge: None keeps nothing, and the last weights stay.
        scores: of the start and of each epoch.
        epoch: of the best.
        state: its weights and statistics.
    """

    judge: Judge | None
    scores: list[Score] = field(default_factory=list)
    epoch: int = 0
    state: dict[str, torch.Tensor] = field(default_factory=dict)

    def look(self, student: torch.nn.Module) -> None:
        """Judge the student as it is now, after one more epoch."""
        if self.judge is None:
            return
        with _evaluating(student):
            score = self.judge.score(student)
        if not self.state or score > self.scores[self.epoch]:
            self.epoch = len(self.scores)
            self.state = {name: value.clone() for name, value in student.state_dict().items()}
        self.scores.append(score)

    def waited(self) -> int:
        """Epochs since the best."""
        return len(self.scores) - 1 - self.epoch

    def words(self, epoch: int = -1) -> str:
        """How close an epoch came; nothing where nothing is judged."""
        return self.judge.words(self.scores[epoch]) if self.judge is not None and self.scores else ""


@contextmanager
def _evaluating(network: torch.nn.Module) -> Iterator[None]:
    """The network in evaluation mode; each module's own mode comes back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _outputs(network: torch.nn.Module, inputs: Inputs) -> list[np.ndarray]:
    import torch
    from torch.utils import _pytree as pytree

    place: Any = next(iter(network.parameters()), inputs[0]).device
    with torch.no_grad():
        leaves = pytree.tree_leaves(network(*(tensor.to(place) for tensor in inputs)))
    return [leaf.float().cpu().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _divergence(wanted: np.ndarray, found: np.ndarray) -> float:
    """The mean Kullback-Leibler divergence of two rows of scores."""
    one, other = (_log_softmax(side.astype(np.float64)) for side in (wanted, found))
    return float((np.exp(one) * (one - other)).sum(1).mean())


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    moved = scores - scores.max(1, keepdims=True)
    return np.asarray(moved - np.log(np.exp(moved).sum(1, keepdims=True)))
