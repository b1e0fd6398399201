"""The ways of quantizing for TFLite: ai-edge-quantizer on the float file, torch's PT2E, and training."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifact import Artifact, Converted
from edgekit.compress.calls import spread
from edgekit.compress.context import Context
from edgekit.compress.quantization.limits import room_for_float
from edgekit.compress.quantization.qat_ways import qat_way
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.tflite_static import fill, prepare, revert
from edgekit.compress.quantization.way import Way
from edgekit.errors import BadInput
from edgekit.runtimes.program import export_program, quiet
from edgekit.runtimes.tflite import FILE, artifact, lower
from edgekit.runtimes.tflite_aeq import GROUPS, Recipe, quantized
from edgekit.runtimes.tflite_file import HEAVY, kinds, left_in_float
from edgekit.signal import snr_db
from edgekit.task.record import Task
from edgekit.verify import OPTIMISER_FLOOR_DB

# Where one of these stands between convolutions and dense layers, these alone may be the better choice.
BETWEEN = frozenset("RSQRT SOFTMAX GELU TANH LOGISTIC BATCH_MATMUL HARD_SWISH DIV SQRT".split())


def _unknown(converted: Converted, settings: Settings) -> str:
    """What no way of this runtime has."""
    if settings.smooth_quant:
        return "SmoothQuant is there for openvino and onnxruntime only"
    if not set(HEAVY) & set(kinds(converted.artifact.path)):
        return "no convolution or matrix product to quantize"
    return ""


def _why_not_static(converted: Converted, settings: Settings, context: Context) -> str:
    if why := _unknown(converted, settings):
        return why
    if settings.weights != "int8":
        return "int4 weights need method weight-only or dynamic"
    if settings.ranges != "min-max":
        return f"LiteRT's quantizer has no {settings.ranges} ranges, only min-max"
    if settings.revert and context.max_drop is None and context.max_class_drop is None:
        return "revert needs a limit of quality, and the budget names none"
    return "" if context.calls else "needs calibration data; give --calibration, or use method dynamic"


def _why_not_layers(converted: Converted, settings: Settings, context: Context) -> str:
    if why := _why_not_static(converted, settings, context):
        return why
    if settings.activations != "int8":
        return "int16 activations have no fast kernels that could gain from it; route aeq-static has them"
    if not BETWEEN & set(kinds(converted.artifact.path)):
        return "all that stands between the layers has integer kernels: route aeq-static"
    return ""


def _why_not_mixed(converted: Converted, settings: Settings, context: Context) -> str:
    if why := room_for_float(context):
        return why
    return _why_not_static(converted, settings, context)


def _why_not_pt2e(converted: Converted, settings: Settings, context: Context) -> str:
    if converted.network is None:
        return "PT2E quantizes torch networks, and this is an ONNX file; route aeq-static takes it"
    if settings.activations != "int8":
        return "LiteRT's PT2E quantizer has no int16 activations; route aeq-static has"
    if settings.revert:
        return "layers are put back to float by route aeq-static"
    return _why_not_static(converted, settings, context)


def _why_not_dynamic(converted: Converted, settings: Settings, context: Context) -> str:
    if settings.weights == "int4" and settings.group_size not in GROUPS:
        known = ", ".join(map(str, GROUPS))
        return f"LiteRT has no kernel for groups of {settings.group_size} weights (known: {known})"
    if settings.weights == "int4" and "FULLY_CONNECTED" not in kinds(converted.artifact.path):
        return "LiteRT has int4 weights in groups for dense layers only, and there is none"
    return _why_not_weights(converted, settings, context)


def _why_not_weights(converted: Converted, settings: Settings, context: Context) -> str:
    del context
    if settings.activations != "int8":
        return "int16 activations need method static"
    if settings.revert:
        return "layers are put back to float with method static"
    return _unknown(converted, settings)


def _make_static(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """All operators that XNNPACK has integer kernels for; int16 activations run in plain kernels, slowly.

    XNNPACK's kernels never saturate between two products, so `reduce_range` changes nothing here.
    """
    del task
    static = prepare(converted, settings, context, layers_only=False)
    return static.write(folder, revert(static, context) if settings.revert else frozenset())


def _make_layers(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """Convolutions and dense layers only, with float between them."""
    del task
    static = prepare(converted, settings, context, layers_only=True)
    return static.write(folder, revert(static, context) if settings.revert else frozenset())


def _make_mixed(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """As many of the most sensitive layers in float as the size limit has room for."""
    del task
    static = prepare(converted, settings, context, layers_only=False)
    return static.write(folder, fill(static, context))


def _make_dynamic(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """Int8 weights per channel, or int4 weights of dense layers in groups; activations as they come.

    Raises:
        BadInput: the kernels of grouped int4 weights, XNNPACK's and the others, disagree on this network.
    """
    del task
    if settings.weights == "int8":
        return _write(converted, Recipe(method="dynamic"), folder)
    recipe = Recipe(method="dynamic", weight_bits=4, group=settings.group_size, kinds=())
    found = _write(converted, recipe, folder)
    fast, plain = (found.open(reference=reference)(context.example) for reference in (False, True))
    if any(snr_db([a], [b]) < OPTIMISER_FLOOR_DB for a, b in zip(plain, fast, strict=True)):
        raise BadInput("LiteRT's kernels of grouped int4 weights are wrong without XNNPACK", where="quantize")
    return found


def _make_weights(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """Weights per channel, dequantized before each layer; groups of weights there are for `dynamic` only."""
    del task, context
    return _write(
        converted, Recipe(method="weight-only", weight_bits=8 if settings.weights == "int8" else 4), folder
    )


def _write(converted: Converted, recipe: Recipe, folder: Path) -> Artifact:
    found = quantized(converted.artifact.path, recipe)
    if len(found) >= converted.artifact.size_bytes:
        raise BadInput("it makes the file no smaller", where="quantize")
    (folder / FILE).write_bytes(found)
    return artifact(folder / FILE, converted.artifact.inputs, converted.artifact.outputs)


def _make_pt2e(
    converted: Converted, settings: Settings, task: Task, context: Context, folder: Path
) -> Artifact:
    """Torch's export quantization (PT2E) with LiteRT's rules; ranges of least squared error."""
    import torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    if converted.network is None:
        raise BadInput("PT2E quantizes torch networks", where="quantize")
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    network = export_program(converted.network(), task).module()
    with quiet(), torch.no_grad():
        prepared = prepare_pt2e(network, quantizer)
        for call in spread(context.calls, settings.samples):
            prepared(*(torch.from_numpy(call[spec.name].copy()) for spec in task.inputs))
        done = convert_pt2e(prepared, fold_quantize=False)
    return lower(done, task, converted.artifact.outputs, folder, quantizer)


STATIC = Way(
    name="aeq-static",
    runtime="tflite",
    method="static",
    why_not=_why_not_static,
    make=_make_static,
    left_in_float=left_in_float,
)
WAYS: tuple[Way, ...] = (
    STATIC,
    Way(
        name="aeq-layers",
        runtime="tflite",
        method="static",
        why_not=_why_not_layers,
        make=_make_layers,
        left_in_float=left_in_float,
    ),
    Way(
        name="aeq-mixed",
        runtime="tflite",
        method="static",
        why_not=_why_not_mixed,
        make=_make_mixed,
        left_in_float=left_in_float,
        by_itself=False,
    ),
    Way(
        name="pt2e",
        runtime="tflite",
        method="static",
        why_not=_why_not_pt2e,
        make=_make_pt2e,
        left_in_float=left_in_float,
    ),
    Way(
        name="aeq-dynamic",
        runtime="tflite",
        method="dynamic",
        why_not=_why_not_dynamic,
        make=_make_dynamic,
        left_in_float=left_in_float,
    ),
    Way(
        name="aeq-weight-only",
        runtime="tflite",
        method="weight-only",
        why_not=_why_not_weights,
        make=_make_weights,
        left_in_float=left_in_float,
    ),
    qat_way("qat", STATIC),
)
