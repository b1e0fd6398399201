"""The ways of quantizing for ExecuTorch: torch's PT2E by the rules of XNNPACK, and torchao's int4."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact, Converted
from edgekit.compress.calls import spread
from edgekit.compress.context import Context
from edgekit.compress.quantization.pt2e_xnnpack import dynamic_quantizer, own_each_weight, static_quantizer
from edgekit.compress.quantization.qat_ways import qat_way
from edgekit.compress.quantization.settings import Method, Settings
from edgekit.compress.quantization.way import Way
from edgekit.errors import BadInput
from edgekit.runtimes.executorch import exported, lower
from edgekit.runtimes.executorch_file import float_products
from edgekit.runtimes.program import example_tensors, quiet
from edgekit.task.record import Task

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def _unknown(settings: Settings) -> str:
    """What no way of this runtime has."""
    if settings.activations != "int8":
        return "XNNPACK has no kernels for int16 activations; LiteRT has"
    if settings.smooth_quant:
        return "SmoothQuant is there for openvino and onnxruntime only"
    if settings.revert:
        return "layers are put back to float for onnxruntime, openvino and tflite only"
    return ""


def _why_not_int8(settings: Settings) -> str:
    if settings.weights != "int8":
        return f"it computes on int8 weights, not on {settings.weights}; route torchao-int4 does"
    return _unknown(settings)


def _why_not_static(converted: Converted, settings: Settings, context: Context) -> str:
    del converted
    if why := _why_not_int8(settings):
        return why
    if settings.ranges != "min-max":
        return f"torch's PT2E has no {settings.ranges} ranges, only min-max and those of least squared error"
    return "" if context.calls else "needs calibration data; give --calibration, or use method dynamic"


def _why_not_dynamic(converted: Converted, settings: Settings, context: Context) -> str:
    del converted, context
    return _why_not_int8(settings)


def _why_not_int4(converted: Converted, settings: Settings, context: Context) -> str:
    del converted, context
    if settings.weights != "int4":
        return "it has int4 weights; ask for them by weights: int4"
    if settings.group_size % 32:
        return f"XNNPACK's groups are multiples of 32 weights, not {settings.group_size}"
    return _unknown(settings)


def _make_static(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """Weights per channel and activations per tensor in int8, ranges from the calibration calls.

    XNNPACK's kernels never saturate between two products, so `reduce_range` changes nothing here.
    """
    calls = spread(context.calls, settings.samples)
    return _pt2e(converted, task, folder, static_quantizer(), calls)


def _make_least_error(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """The same with ranges of least squared error: on an ImageNet MobileNetV2 one dB better."""
    calls = spread(context.calls, settings.samples)
    return _pt2e(converted, task, folder, static_quantizer(least_error=True), calls)


def _make_dynamic(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """Weights per channel in int8, activations rounded to int8 before each product by their range there."""
    del settings, context
    return _pt2e(converted, task, folder, dynamic_quantizer(), [task.named(task.example)])


def _pt2e(converted: Converted, task: Task, folder: Path, quantizer: Any, calls: Sequence[Any]) -> Artifact:
    """Torch's export quantization (PT2E): observe, convert, export anew, lower."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    network = exported(_network(converted), task).module()
    own_each_weight(network)
    with quiet(), torch.no_grad():
        prepared = prepare_pt2e(network, quantizer)
        for call in calls:
            prepared(*(torch.from_numpy(call[spec.name].copy()) for spec in task.inputs))
        quantized = torch.export.export(convert_pt2e(prepared), example_tensors(task))
    return _lowered(quantized, converted, task, folder)


def _make_int4(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """Dense layers with int4 weights, a scale a group; activations rounded to int8 by their range there."""
    import torch
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    del context
    size, network = settings.group_size, copy.deepcopy(_network(converted))

    def fits(module: torch.nn.Module, _name: str = "") -> bool:
        return isinstance(module, torch.nn.Linear) and module.in_features % size == 0

    if not any(map(fits, network.modules())):
        raise BadInput(f"no dense layer has a multiple of {size} inputs", where="quantize")
    with quiet():
        config = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=getattr(torch, "int4"),  # noqa: B009 - torch's stubs lack it
            weight_granularity=PerGroup(size),
        )
        quantize_(network, config, filter_fn=fits)
        return _lowered(exported(network, task), converted, task, folder)


def _network(converted: Converted) -> torch.nn.Module:
    if converted.network is None:  # its float program could not be made either
        raise BadInput("it takes torch networks only", where="quantize")
    return converted.network()


def _lowered(program: ExportedProgram, converted: Converted, task: Task, folder: Path) -> Artifact:
    if not any("quantize" in str(node.target) for node in program.graph.nodes):
        raise BadInput(
            "nothing was quantized: XNNPACK has no integer kernel for its layers", where="quantize"
        )
    return lower(program, task, converted.artifact.outputs, folder, [])


def _way(
    name: str,
    method: Method,
    why_not: Callable[[Converted, Settings, Context], str],
    make: Callable[[Converted, Settings, Task, Context, Path], Artifact],
) -> Way:
    return Way(
        name=name,
        runtime="executorch",
        method=method,
        why_not=why_not,
        make=make,
        left_in_float=float_products,
    )


STATIC = _way("pt2e-static", "static", _why_not_static, _make_static)
WAYS: tuple[Way, ...] = (
    STATIC,
    _way("pt2e-static-mse", "static", _why_not_static, _make_least_error),
    _way("pt2e-dynamic", "dynamic", _why_not_dynamic, _make_dynamic),
    _way("torchao-int4", "dynamic", _why_not_int4, _make_int4),
    qat_way("qat", STATIC),
)
