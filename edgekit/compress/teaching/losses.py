"""What a student is taught by: its distance to the teacher's outputs, and to the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# What a row of class scores may have passed through since a matrix product wrote it, as autograd names it;
# the same idea as edgekit/graph/classifier.py has of an ONNX graph.
_PASSED_THROUGH = ("Softmax", "LogSoftmax", "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Add", "Clone")
_SCORES = ("Addmm", "Mm", "Linear", "Bmm")


@dataclass(frozen=True)
class DistillationLoss:
    """Knowledge distillation (Hinton et al. 2015).

    On class scores the teacher's softened distribution is mixed with the labels. On any other output it is
    the relative distance to the teacher's, which means the same whatever the unit is.

    Attributes:
        temperature: softens both distributions.
        alpha: weight of the teacher against the labels, from 0 to 1.
        classifies: whether outputs of shape (batch, classes) are class scores.
    """

    temperature: float = 3.0
    alpha: float = 0.7
    classifies: bool = True

    def __call__(self, output: Any, expected: Any, label: Any) -> torch.Tensor:
        """The loss of the student's output against the teacher's; `label` may be None."""
        import torch

        if self.classifies and isinstance(output, torch.Tensor) and output.ndim == 2:
            soft = self._softened(_scores(output, expected), _scores(expected, expected))
        else:
            soft = relative_distance(output, expected, label)
        hard = label_loss(output, label) if self.alpha < 1 else None
        return soft if hard is None else self.alpha * soft + (1 - self.alpha) * hard

    def _softened(self, output: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional as F  # noqa: N812 - its usual name

        t = self.temperature
        divergence = F.kl_div(F.log_softmax(output / t, 1), F.softmax(expected / t, 1), reduction="batchmean")
        return divergence * t * t


def label_loss(output: Any, label: Any) -> torch.Tensor | None:
    """The loss against the labels alone; None where they do not tell one.

    Cross entropy where they are class numbers, one for each sample or for each place of it; the relative
    distance where they are what the single output should be.
    """
    import torch
    from torch.nn import functional as F  # noqa: N812 - its usual name

    if not isinstance(output, torch.Tensor) or not isinstance(label, torch.Tensor):
        return None
    if label.dtype == torch.int64 and output.ndim == label.ndim + 1 >= 2 and len(output) == len(label):
        return F.cross_entropy(_scores(output, output), label)
    if label.is_floating_point() and label.shape == output.shape:
        return relative_distance(output, label, None)
    return None


def _scores(output: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """Scores that softmax makes the output of; probabilities are recognised by an example of them."""
    import torch

    whole = example.detach().sum(1)
    if bool((example >= 0).all()) and torch.allclose(whole, torch.ones_like(whole), atol=1e-3):
        return output.clamp(min=1e-12).log()
    return output


def relative_distance(output: Any, expected: Any, label: Any) -> torch.Tensor:
    """The energy of the difference from the teacher's output over that of the output, summed over outputs.

    Needs neither labels nor class scores, and means the same whatever the outputs' unit is.
    """
    import torch
    from torch.utils import _pytree as pytree

    del label
    pairs = zip(pytree.tree_leaves(output), pytree.tree_leaves(expected), strict=True)
    return torch.stack([energy_ratio(a, b) for a, b in pairs if torch.is_floating_point(a)]).sum()


def energy_ratio(got: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The energy of the difference over that of what is wanted; 0 where they are equal."""
    return (got - wanted).square().mean() / wanted.square().mean().clamp(min=1e-12)


def attention_distance(got: torch.Tensor, wanted: torch.Tensor, axis: int) -> torch.Tensor:
    """Attention transfer (Zagoruyko & Komodakis 2017): how differently two maps look at their places.

    The attention at a place is the mean square over channels; over all places it is scaled to length 1.

    Args:
        got: of the student, one map for each sample.
        wanted: of the teacher, with the same places and any number of channels.
        axis: of the channels.

    Returns:
        The squared distance, 0 to 2, averaged over samples.
    """
    from torch.nn import functional as F  # noqa: N812 - its usual name

    one, other = (F.normalize(side.square().mean(axis).flatten(1), dim=1) for side in (got, wanted))
    return (one - other).square().sum(1).mean()


def classifies(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether the only output is a row of class scores: written by a matrix product, or by softmax after one.

    Args:
        network: is called with these inputs, and left as it was.
        inputs: of one call.
    """
    import torch

    traced = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    with torch.enable_grad():
        output = network(*traced)
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[1] < 2:
        return False
    node = output.grad_fn
    while node is not None and _is_one_of(node, _PASSED_THROUGH):
        node = next((before for before, _ in node.next_functions if before is not None), None)
    return node is not None and _is_one_of(node, _SCORES)


def _is_one_of(node: Any, names: tuple[str, ...]) -> bool:
    return node.name().partition("Backward")[0] in names
