"""Quantization-aware training: fine-tune a network while its weights and activations are rounded.

The rounding is simulated (Jacob et al. 2018), the gradient passes straight through it. The loss is the
distance to the float network. What comes out is a float network whose weights bear rounding better; it is
then quantized like any other, by each runtime's own static way. So no runtime needs an export of its own for
it, and what was trained for is what each of them does: weights per channel, the inputs of convolutions and
dense layers per tensor, ranges from the calibration calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgekit.compress.calls import Call, spread
from edgekit.compress.context import Context
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.teaching.lesson import Lesson
from edgekit.compress.teaching.losses import relative_distance
from edgekit.compress.teaching.training import channels_last, contiguous, one_thread, train
from edgekit.errors import BadInput
from edgekit.task.call import call_module
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch

RANGE_CALLS = 64


def trained(network: torch.nn.Module, task: Task, settings: Settings, context: Context) -> torch.nn.Module:
    """A float copy of the network, fine-tuned with rounding in place; the best epoch's weights.

    Batch norms keep their statistics and dropout is off: the network is trained as it is deployed. After
    each epoch the ranges are found anew, and the rounded network is held against the float one on the
    calibration calls; when no epoch comes closer than the start, the weights are the start's.

    Args:
        network: left as it was.
        task: gives the training data and, as the teacher, its own network.
        settings: of these the epochs and the learning rate.
        context: gives the calibration calls.

    Raises:
        BadInput: there is no layer to round, or no training data that the network can be trained on.
    """
    import torch

    student = channels_last(network).eval()
    rounding = _Rounding(bits=7 if context.reduce_range else 8)
    rounding.attach(student)
    calls = spread(context.calls, RANGE_CALLS)
    best = _Best(task, calls)

    def renew(done: int, loss: float) -> None:
        rounding.observe(student, calls)
        distance = best.judge(student)
        context.detail(f"epoch {done} of {settings.epochs}, loss {loss:.3f}, {distance:.1f} dB from float")

    with one_thread(), torch.no_grad():
        rounding.observe(student, calls)
        context.detail(f"before training, {best.judge(student):.1f} dB from float")
    lesson = Lesson(
        step="quantize",
        epochs=settings.epochs,
        loss=relative_distance,
        optimiser=lambda parameters, steps: _optimiser(parameters, steps, settings.learning_rate),
        after=renew,
    )
    train(student, task, lesson)
    student.load_state_dict(best.state)
    rounding.detach(student)
    return contiguous(student)


def _optimiser(parameters: Iterable[torch.nn.Parameter], steps: int, rate: float) -> tuple[Any, Any]:
    import torch

    optimiser = torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))


class _Best:
    """The weights of the epoch whose rounded network is closest to the float one."""

    def __init__(self, task: Task, calls: Sequence[Call]) -> None:
        self.calls, self.distance = calls, float("-inf")
        self.state: dict[str, torch.Tensor] = {}
        self.expected = [self._outputs(task.model, call) for call in calls]

    def judge(self, student: torch.nn.Module) -> float:
        from edgekit.signal import snr_db

        got = [self._outputs(student, call) for call in self.calls]
        distance = snr_db([a for one in self.expected for a in one], [a for one in got for a in one])
        if distance > self.distance:
            self.distance = distance
            self.state = {name: value.clone() for name, value in student.state_dict().items()}
        return distance

    @staticmethod
    def _outputs(network: Any, call: Call) -> list[Any]:
        return list(call_module(network, tuple(call.values())).values())


@dataclass
class _Rounding:
    """Simulated rounding in a network: of the weights of its layers and of what they are given.

    Attributes:
        bits: of the weights; activations have 8.
        ranges: smallest and largest input by layer name.
        handles: take the hooks off again.
    """

    bits: int
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)
    observing: bool = False

    def attach(self, network: torch.nn.Module) -> None:
        from torch.nn.utils import parametrize

        layers = _layers(network)
        if not layers:
            raise BadInput(
                "no convolution or dense layer of torch.nn to train with rounding",
                where="quantize",
                todo="use method static",
            )
        for name, layer in layers.items():
            axis = 1 if "Transpose" in type(layer).__name__ else 0
            parametrize.register_parametrization(layer, "weight", _rounded_weight(axis, self.bits))
            self.handles.append(layer.register_forward_pre_hook(self._hook(name)))

    def observe(self, network: torch.nn.Module, calls: Sequence[Call]) -> None:
        """Find the ranges of the layers' inputs on these calls."""
        self.ranges.clear()
        self.observing = True
        for call in calls:
            call_module(network, tuple(call.values()))
        self.observing = False

    def detach(self, network: torch.nn.Module) -> None:
        """Leave the float weights."""
        from torch.nn.utils import parametrize

        for handle in self.handles:
            handle.remove()
        for layer in network.modules():
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)

    def _hook(self, name: str) -> Any:
        import torch

        def round_input(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
            value = inputs[0]
            if self.observing:
                low, high = self.ranges.get(name, (0.0, 0.0))
                self.ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
                return None
            low, high = self.ranges.get(name, (0.0, 0.0))
            scale = max((high - low) / 255, 1e-8)
            zero = min(255, max(0, round(-low / scale)))
            return torch.fake_quantize_per_tensor_affine(value, scale, zero, 0, 255), *inputs[1:]

        return round_input


def _layers(network: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The layers whose weights are rounded, by name; one whose weight is computed already is left alone."""
    import torch
    from torch.nn.utils import parametrize

    kinds = (
        torch.nn.Conv1d,
        torch.nn.Conv2d,
        torch.nn.Conv3d,
        torch.nn.ConvTranspose1d,
        torch.nn.ConvTranspose2d,
        torch.nn.Linear,
    )
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, kinds) and not parametrize.is_parametrized(layer)
    }


def _rounded_weight(axis: int, bits: int) -> torch.nn.Module:
    import torch

    most = 2 ** (bits - 1) - 1

    class RoundedWeight(torch.nn.Module):
        """Symmetric, one scale a channel. Batch norm scales channels, so that folding it changes nothing."""

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            rest = [a for a in range(weight.ndim) if a != axis]
            scale = weight.detach().abs().amax(rest).clamp(min=1e-12) / most
            zero = torch.zeros_like(scale, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -most, most)

    return RoundedWeight()
