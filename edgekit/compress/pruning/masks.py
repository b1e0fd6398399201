"""Which weights are zero: by magnitude, in blocks, or n of every m; and training that keeps them so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgekit.compress.calls import spread
from edgekit.compress.context import Context
from edgekit.compress.pruning.narrow import heavy_types
from edgekit.compress.pruning.schedule import cubic
from edgekit.compress.teaching.lesson import Lesson
from edgekit.compress.teaching.losses import DistillationLoss, classifies
from edgekit.compress.teaching.training import train
from edgekit.compress.teaching.training_data import as_inputs
from edgekit.compress.teaching.training_options import Training
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

JUDGED_CALLS = 64
UPDATES = 20  # of the masks, while their share of zeros grows
GROWN = 0.75  # of the steps are done when all zeros are there; the rest recovers


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Which weights may be zero together.

    Attributes:
        kind: `unstructured`: each on its own; `block`: whole blocks of outputs x inputs, at the same place of
            the window; `n:m`: of m neighbouring inputs, n stay.
        scope: what is ranked together: all layers, or each on its own; of no matter for `n:m`.
        block: outputs x inputs.
        n, m: see there.
    """

    kind: Literal["unstructured", "block", "n:m"] = "unstructured"
    scope: Literal["global", "layer"] = "global"
    block: tuple[int, int] = (4, 1)
    n: int = 2
    m: int = 4

    def fits(self, weight: torch.Tensor) -> bool:
        """Whether the weight, (out, in, ...), is made of whole blocks."""
        if self.kind == "block":
            return weight.shape[0] % self.block[0] == 0 and weight.shape[1] % self.block[1] == 0
        return self.kind != "n:m" or weight.shape[1] % self.m == 0


def weights_of(network: torch.nn.Module) -> Tensors:
    """The weights of the convolutions and linear layers, by the layer's name."""
    layers: dict[str, Any] = {n: m for n, m in network.named_modules() if isinstance(m, heavy_types())}
    return {name: layer.weight for name, layer in layers.items()}


def masks_for(weights: Mapping[str, torch.Tensor], pattern: Pattern, sparsity: float) -> Tensors:
    """1 where a weight stays and 0 where it goes, those of least magnitude first.

    Args:
        weights: those that `fits`, by name.
        pattern: see there.
        sparsity: the share that goes; of no matter for `n:m`.
    """
    import torch

    if pattern.kind == "n:m":
        return {name: _n_of_m(weight.detach(), pattern) for name, weight in weights.items()}
    block = pattern.block if pattern.kind == "block" else (1, 1)
    scores = {name: _by_block(weight.detach().abs(), block) for name, weight in weights.items()}
    if pattern.scope == "layer":
        kept = {name: _largest(score.flatten(), sparsity).view(score.shape) for name, score in scores.items()}
    else:
        flat = _largest(torch.cat([score.flatten() for score in scores.values()]), sparsity)
        parts = torch.split(flat, [score.numel() for score in scores.values()])
        kept = {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}
    return {
        name: mask.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        for name, mask in kept.items()
    }


def train_masked(
    network: torch.nn.Module,
    task: Task,
    context: Context,
    epochs: int,
    masks: Callable[[float, Tensors], Tensors],
    *,
    keep_best: bool = False,
) -> None:
    """Train in place with the masked weights held at zero after every step.

    Args:
        network: in evaluation mode, also afterwards.
        task: with training data.
        context: shows how far it is.
        epochs: passes over the training data.
        masks: gives the masks when this share (0 to 1) of the steps is done, for the weights as they are;
            asked `UPDATES` times.
        keep_best: keep the weights of the epoch that came closest to the original.

    Raises:
        BadInput: there is no training data, or none that the network can be trained on.
    """
    weights = weights_of(network)
    held = masks(0.0, weights)

    def optimiser(parameters: Iterable[torch.nn.Parameter], steps: int) -> tuple[Any, Any]:
        made, schedule = Training().optimiser_of(parameters, steps)
        every, done = max(1, steps // UPDATES), 0

        def hold(*_: Any) -> None:
            nonlocal done, held
            done += 1
            if done % every == 0:
                held = masks(done / steps, weights)
            apply_masks(weights, held)

        made.register_step_post_hook(hold)
        return made, schedule

    lesson = Lesson(
        step="sparsify",
        epochs=epochs,
        loss=DistillationLoss(classifies=classifies(network, as_inputs(context.example))),
        optimiser=optimiser,
        keep_best=keep_best,
        judged=[as_inputs(call) for call in spread(context.calls, JUDGED_CALLS)],
        detail=context.detail,
    )
    network.train()
    train(network, task, lesson)
    network.eval()


def growing(sparsity: float, done: float) -> float:
    """The share of zeros when this part of the training is done (Zhu & Gupta 2017)."""
    return cubic(sparsity, done / GROWN)


def apply_masks(weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]) -> None:
    """Let the weights be zero where their mask is."""
    import torch

    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)


def _largest(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    import torch

    mask = torch.ones_like(scores)
    mask[scores.argsort(stable=True)[: round(sparsity * len(scores))]] = 0
    return mask


def _by_block(sizes: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    out, inner = sizes.shape[:2]
    rows, columns = block
    return sizes.reshape(out // rows, rows, inner // columns, columns, *sizes.shape[2:]).mean((1, 3))


def _n_of_m(weight: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The n largest of every m neighbours along the input channels (Mishra et al. 2021)."""
    import torch

    rows = weight.abs().movedim(1, -1)
    parts = rows.reshape(-1, pattern.m)
    mask = torch.zeros_like(parts).scatter_(1, parts.topk(pattern.n, 1).indices, 1.0)
    return mask.view(rows.shape).movedim(-1, 1)
