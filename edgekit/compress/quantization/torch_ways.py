"""The ways of quantizing for torch itself: torchao, which treats dense layers.

On a CPU they give size, not speed: torch runs the same steps one by one that other runtimes have kernels for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.artifact import Artifact, Converted
from edgekit.compress.context import Context
from edgekit.compress.quantization.settings import Method, Settings
from edgekit.compress.quantization.way import Way
from edgekit.errors import BadInput
from edgekit.runtimes.program import export_program, quiet
from edgekit.runtimes.torch import save
from edgekit.task.record import Task

PRODUCTS = (
    "lstm",
    "gru",
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "linear",
    "mm",
    "addmm",
    "bmm",
    "matmul",
)


def float_products(artifact: Artifact) -> int:
    """Convolutions and matrix products that are no integer ones; those of weight-only layers are float."""
    import torch

    nodes = torch.export.load(artifact.path).graph.nodes
    names = [str(node.target).split(".") for node in nodes if node.op == "call_function"]
    return sum(len(name) > 1 and name[0] == "aten" and name[1] in PRODUCTS for name in names)


def _int8_weight_only() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig

    return Int8WeightOnlyConfig()


def _int8_dynamic() -> Any:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return Int8DynamicActivationInt8WeightConfig()


def _why_not_int8(converted: Converted, settings: Settings, context: Context) -> str:
    del converted, context
    if settings.weights != "int8":
        return f"it has int8 weights, not {settings.weights}"
    if settings.activations != "int8":
        return "torchao has no int16 activations; LiteRT has"
    if settings.smooth_quant:
        return "SmoothQuant is there for openvino and onnxruntime only"
    return "layers are put back to float for onnxruntime, openvino and tflite only" if settings.revert else ""


def _why_not_int4(converted: Converted, settings: Settings, context: Context) -> str:
    del converted, settings, context
    return "torchao 0.18 computes with int4 weights on GPUs only; on a CPU each weight would take a byte"


def _why_not_autoquant(converted: Converted, settings: Settings, context: Context) -> str:
    del converted, settings, context
    return "torchao 0.18 has it no more; route `auto` tries every way and keeps the best by its figures"


def _make(config: Callable[[], Any]) -> Callable[[Converted, Settings, Task, Context, Path], Artifact]:
    def make(
        converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
    ) -> Artifact:
        del settings, context
        with quiet():
            return _torchao(converted, task, config(), folder)

    return make


def _torchao(converted: Converted, task: Task, config: Any, folder: Path) -> Artifact:
    import torch
    from torchao.quantization import quantize_

    if converted.network is None:
        raise BadInput("torchao takes torch networks only", where="quantize")
    network = copy.deepcopy(converted.network())
    if not any(isinstance(module, torch.nn.Linear) for module in network.modules()):
        raise BadInput("the network has no dense layer, and torchao treats no other", where="quantize")
    quantize_(network, config)
    program = export_program(network, task)
    # Without torchao's own operators and tensor classes: the device then needs torch alone.
    known: Any = torch.export.default_decompositions()
    table = {operator: known[operator] for operator in known if str(operator).startswith("torchao")}
    return save(program.run_decompositions(table), task, converted.artifact.outputs, folder)


def _never(
    _converted: Converted, _settings: Settings, _task: Task, _context: Context, _folder: Path
) -> Artifact:
    raise BadInput("this way is closed", where="quantize")


def _way(
    name: str,
    method: Method,
    why_not: Callable[[Converted, Settings, Context], str],
    make: Callable[[Converted, Settings, Task, Context, Path], Artifact] = _never,
) -> Way:
    return Way(
        name=name, runtime="torch", method=method, why_not=why_not, make=make, left_in_float=float_products
    )


WAYS: tuple[Way, ...] = (
    _way("torchao-int8-weight-only", "weight-only", _why_not_int8, _make(_int8_weight_only)),
    _way("torchao-int8-dynamic", "dynamic", _why_not_int8, _make(_int8_dynamic)),
    _way("torchao-int4-weight-only", "weight-only", _why_not_int4),
    _way("torchao-autoquant", "weight-only", _why_not_autoquant),
)
