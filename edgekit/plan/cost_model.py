"""Latency and size of a network on a board that is not here: a roofline per layer, with its interval.

    time = max(work / rate, bytes / memory_gbs) + overhead_us
    rate = clock_mhz * macs_per_cycle * share (kernel family) * gain (precision) * speed-up (threads)

Every number is the profile's, one set for each runtime; `benchmarks/fit_profiles.py` fits the coefficients to
published latencies and says how far off they are. Of a runtime that has none, or a precision whose gain is
unknown, no latency is predicted: the figures of one runtime say nothing of another's. A prediction orders
candidates and rules out hopeless ones: its interval is wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.cost import Cost, Figure
from edgekit.errors import count
from edgekit.graph.layers import LOOP_OPS, Layer
from edgekit.target_profile import CostModel, Profile

if TYPE_CHECKING:
    from edgekit.artifact import RuntimeName

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
# What an ONNX file holds beside weights: a node with its names and attributes; in int8 three pairs of
# quantizers, and for each channel two scales, two zero points and a bias. Within 3 % on ten networks.
_NODE_BYTES = 700
_INT8_NODE_BYTES = 2500
_INT8_CHANNEL_BYTES = 17


def predict(layers: Sequence[Layer], profile: Profile, *, runtime: RuntimeName, threads: int) -> Cost:
    """Latency and size of these layers on that board.

    There is no latency where the profile knows too little of the runtime, and where a loop hides what is
    computed.

    Args:
        layers: of one call, each with the precision that its kernel will compute in.
        profile: the board.
        runtime: what executes them there.
        threads: of the runtime.
    """
    times = layer_times_ms(layers, profile, runtime=runtime, threads=threads)
    if times is None or any(layer.op in LOOP_OPS for layer in layers):
        return Cost(size_mb=_size(layers))
    model, p50 = profile.cost_model[runtime], sum(times)
    source = f"cost model of {profile.name}, {runtime}, {count(threads, 'thread')}"

    def latency(factor: float) -> Figure:
        value = p50 * factor
        return Figure(
            value=value, how="predicted", source=source, low=value * model.low, high=value * model.high
        )

    return Cost(
        latency_p50_ms=latency(1),
        latency_p90_ms=latency(model.p90),
        latency_p99_ms=latency(model.p99),
        size_mb=_size(layers),
    )


def layer_times_ms(
    layers: Sequence[Layer], profile: Profile, *, runtime: RuntimeName, threads: int
) -> list[float] | None:
    """The predicted median milliseconds of each layer, in order.

    None where the profile knows nothing of the runtime, or of the gain of a precision that is computed in.

    Args:
        layers: of one call.
        profile: the board.
        runtime: what executes them there.
        threads: more than the board has cores count as its cores.
    """
    model = profile.cost_model.get(runtime)
    if model is None:
        return None
    gains = {precision: model.gain(precision) for precision in {layer.precision for layer in layers}}
    known = {precision: gain for precision, gain in gains.items() if gain is not None}
    if len(known) < len(gains):
        return None
    peak = profile.clock_mhz * 1e3 * profile.macs_per_cycle * speed_up(model, min(threads, profile.cores))
    return [_layer_ms(layer, model, peak, known[layer.precision]) for layer in layers]


def speed_up(model: CostModel, threads: int) -> float:
    """How many times faster the arithmetic is on `threads` threads than on one (Amdahl)."""
    used = max(1, threads)
    return used / (1 + model.serial_share * (used - 1))


def _layer_ms(layer: Layer, model: CostModel, peak: float, gain: float) -> float:
    """Milliseconds of one layer.

    Args:
        layer: what is computed.
        model: the coefficients.
        peak: float32 multiply-accumulates in a millisecond, of all threads.
        gain: rate of this layer's precision over float32.
    """
    # Where float16 brings no kernel of its own, the runtime widens the values before it computes.
    widened = layer.precision == "float16" and gain <= 1
    elements = layer.params + layer.input_elements + layer.output_elements
    moving_ms = elements * _BYTES["float32" if widened else layer.precision] / (model.memory_gbs * 1e6)
    return max(layer.macs / (peak * _share(layer, model) * gain), moving_ms) + model.overhead_us / 1e3


def _share(layer: Layer, model: CostModel) -> float:
    """The share of the peak rate that this layer's kernel family reaches."""
    if layer.kind == "dense":
        return model.dense
    return model.depthwise if layer.kind in {"depthwise", "grouped"} else model.pointwise


def _size(layers: Sequence[Layer]) -> Figure:
    weights = sum(layer.params * layer.own_share * _BYTES[layer.precision] for layer in layers)
    graph = sum(_graph_bytes(layer) for layer in layers)
    return Figure(
        value=(weights + graph) / 1e6,
        how="predicted",
        source="weights at their precision, and the graph around them",
        low=weights / 1e6,
        high=(weights * 1.05 + graph * 2) / 1e6,
    )


def _graph_bytes(layer: Layer) -> int:
    if layer.precision != "int8":
        return _NODE_BYTES
    return _INT8_NODE_BYTES + _INT8_CHANNEL_BYTES * layer.channels
