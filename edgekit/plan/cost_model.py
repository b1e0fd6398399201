"""Latency and size of a network on a board that is not here: a roofline per layer, with its interval.

    time = max(work / rate, bytes / memory_gbs) + overhead_us
    rate = clock_mhz * macs_per_cycle * share (kernel family) * gain (precision) * speed-up (threads)

Every number is the profile's; `benchmarks/fit_profiles.py` fits the coefficients to published latencies and
says how far off they are. A prediction orders candidates and rules out hopeless ones: its interval is wide.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.cost import Cost, Figure
from edgekit.errors import count
from edgekit.graph.layers import LOOP_OPS, Layer
from edgekit.target import Profile

_BYTES = {"float32": 4, "float16": 2, "int8": 1}
# What an ONNX file holds beside weights: a node with its names and attributes; in int8 three pairs of
# quantizers, and for each channel two scales, two zero points and a bias. Within 3 % on ten networks.
_NODE_BYTES = 700
_INT8_NODE_BYTES = 2500
_INT8_CHANNEL_BYTES = 17


def predict(layers: Sequence[Layer], profile: Profile, *, runtime: str, threads: int) -> Cost:
    """Latency and size of these layers on that board; no latency where a loop hides what is computed.

    Args:
        layers: of one call, each with the precision that its kernel will compute in.
        profile: the board.
        runtime: what executes them there.
        threads: of the runtime.
    """
    if any(layer.op in LOOP_OPS for layer in layers):
        return Cost(size_mb=_size(layers))
    model = profile.cost_model
    p50 = sum(layer_times_ms(layers, profile, runtime=runtime, threads=threads))
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


def layer_times_ms(layers: Sequence[Layer], profile: Profile, *, runtime: str, threads: int) -> list[float]:
    """The predicted median milliseconds of each layer, in order.

    Args:
        layers: of one call.
        profile: the board.
        runtime: its coefficients are those of onnxruntime, the only one there is so far.
        threads: more than the board has cores count as its cores.
    """
    del runtime
    gain = speed_up(profile, threads)
    return [_layer_ms(layer, profile, gain) for layer in layers]


def speed_up(profile: Profile, threads: int) -> float:
    """How many times faster the arithmetic is on `threads` threads than on one (Amdahl)."""
    used = max(1, min(threads, profile.cores))
    return used / (1 + profile.cost_model.serial_share * (used - 1))


def _layer_ms(layer: Layer, profile: Profile, thread_gain: float) -> float:
    model = profile.cost_model
    elements = layer.params + layer.input_elements + layer.output_elements
    moving_ms = elements * _element_bytes(layer, profile) / (model.memory_gbs * 1e6)
    macs_per_ms = profile.clock_mhz * 1e3 * profile.macs_per_cycle * _share(layer, profile)
    working_ms = layer.macs / (macs_per_ms * _precision_gain(layer, profile) * thread_gain)
    return max(working_ms, moving_ms) + model.overhead_us / 1e3


def _share(layer: Layer, profile: Profile) -> float:
    """The share of the peak rate that this layer's kernel family reaches."""
    model = profile.cost_model
    if layer.kind == "dense":
        return model.dense
    return model.depthwise if layer.kind in {"depthwise", "grouped"} else model.pointwise


def _precision_gain(layer: Layer, profile: Profile) -> float:
    return {"int8": profile.int8_gain, "float16": profile.fp16_gain}.get(layer.precision, 1.0)


def _element_bytes(layer: Layer, profile: Profile) -> int:
    """Where float16 brings no kernel of its own, the runtime widens the values before it computes."""
    if layer.precision == "float16" and profile.fp16_gain <= 1:
        return _BYTES["float32"]
    return _BYTES[layer.precision]


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
