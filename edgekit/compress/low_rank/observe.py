"""What layers are given on real inputs: samples of it, and its second moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.compress.calls import Call, spread
from edgekit.compress.low_rank.layer import is_pointwise
from edgekit.task.call import call_module

if TYPE_CHECKING:
    import torch

CALLS = 64  # that second moments are taken over
SAMPLES = 4  # calls whose inputs are kept whole, to measure errors on
MOST_COLUMNS = 2304  # beyond, the second moment of whole windows is too large to decompose in seconds


@dataclass(kw_only=True)
class Seen:
    """What one layer was given.

    Attributes:
        samples: a few inputs, whole.
        windows: mean of x x^T over what an output reads, (in * height * width) squared; None where that is
            too large, or there was no data.
        channels: the same over the input channels of single places; None where there was no data.
    """

    samples: list[torch.Tensor]
    windows: np.ndarray | None = None
    channels: np.ndarray | None = None


def observe(
    network: torch.nn.Module, names: Sequence[str], calls: Sequence[Call], example: Call
) -> dict[str, Seen]:
    """What the named layers are given on the calls; of a layer that is not reached there is nothing.

    Args:
        network: in evaluation mode; left as it was.
        names: of linear layers and convolutions.
        calls: calibration data; without any, the layers' samples are noise of the example's shapes.
        example: the deployed call.
    """
    layers = {name: layer for name, layer in network.named_modules() if name in set(names)}
    moments = {name: _Moments(layer) for name, layer in layers.items()}
    handles = [layer.register_forward_pre_hook(moments[name]) for name, layer in layers.items()]
    chosen = spread(calls, CALLS) or [example]
    try:
        for number, call in enumerate(chosen):
            for moment in moments.values():
                moment.keep = number < SAMPLES
            call_module(network, tuple(call.values()))
    finally:
        for handle in handles:
            handle.remove()
    return {name: moment.seen(real=bool(calls)) for name, moment in moments.items() if moment.samples}


class _Moments:
    """A hook that adds up what a layer is given."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.keep = layer, False
        self.samples: list[torch.Tensor] = []
        self.places = 0
        self.channels: np.ndarray | float = 0.0
        self.windows: np.ndarray | float = 0.0
        self.window_places = 0
        columns = self.layer.weight[0].numel()
        self.wants_windows = not is_pointwise(layer) and columns <= MOST_COLUMNS

    def __call__(self, _layer: Any, inputs: Any) -> None:
        """Take one input."""
        value = inputs[0].detach()
        if self.keep:
            self.samples.append(value.clone())
        flat = self._channels_of(value)
        self.channels = self.channels + flat @ flat.T
        self.places += flat.shape[1]
        if self.wants_windows:
            columns = self._windows_of(value)
            self.windows = self.windows + columns @ columns.T
            self.window_places += columns.shape[1]

    def _channels_of(self, value: torch.Tensor) -> np.ndarray:
        if self.layer.weight.ndim == 2:
            return value.reshape(-1, value.shape[-1]).double().numpy().T
        return value.transpose(0, 1).reshape(value.shape[1], -1).double().numpy()

    def _windows_of(self, value: torch.Tensor) -> np.ndarray:
        import torch

        layer = self.layer
        columns = torch.nn.functional.unfold(
            value, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        return columns.transpose(0, 1).reshape(columns.shape[1], -1).double().numpy()

    def seen(self, *, real: bool) -> Seen:
        """All of it; noise in place of the samples where the input was only an example."""
        import torch

        if not real:
            noise = torch.Generator().manual_seed(0)
            return Seen(samples=[torch.randn(s.shape, generator=noise) for s in self.samples])
        channels = np.asarray(self.channels) / self.places
        windows = np.asarray(self.windows) / self.window_places if self.window_places else None
        return Seen(
            samples=self.samples, windows=channels if is_pointwise(self.layer) else windows, channels=channels
        )


def output_error(layer: Any, other: torch.nn.Module, samples: Sequence[torch.Tensor]) -> float:
    """How far `other` is from `layer` on these inputs: the norm of the difference over that of the outputs.

    The layer's bias, which is not decomposed, is left out of both.
    """
    import torch

    wrong = whole = 0.0
    with torch.no_grad():
        for sample in samples:
            expected, got = layer(sample), other(sample)
            wrong += float((got - expected).square().sum())
            whole += float((expected - _bias_of(layer)).square().sum())
    return float(np.sqrt(wrong / whole)) if whole > 0 else 0.0


def _bias_of(layer: Any) -> Any:
    """The bias in a shape that broadcasts over the outputs."""
    if layer.bias is None:
        return 0.0
    return layer.bias if layer.weight.ndim == 2 else layer.bias[:, None, None]
