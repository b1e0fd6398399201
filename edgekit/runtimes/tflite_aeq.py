"""ai-edge-quantizer: a .tflite file with its weights, or all it computes on, in narrower numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.errors import BadInput, first_line

Call = Mapping[str, np.ndarray]
Ranges = Mapping[str, Any]
GROUPS = (32, 64, 128, 256)  # that the dense layers' int4 kernels have

_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}  # that ai-edge-quantizer calls otherwise than the file


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is to be rounded, and how.

    Attributes:
        method: static takes the ranges of activations from calibration, dynamic finds them in each call.
        weight_bits: 8 or 4.
        activation_bits: of method static, 8 or 16.
        group: int4 weights of a dense layer that share a scale, one of GROUPS; 0 for one scale a channel.
        kinds: kinds of operators, as the file calls them; None for all.
        kept: names of operators that stay in float.
    """

    method: Literal["static", "dynamic", "weight-only", "float16"]
    weight_bits: int = 8
    activation_bits: int = 8
    group: int = 0
    kinds: tuple[str, ...] | None = None
    kept: frozenset[str] = frozenset()


def quantized(path: Path, recipe: Recipe, ranges: Ranges | None = None) -> bytes:
    """The bytes of the quantized file; inputs and outputs stay as they are.

    Args:
        path: of the float file.
        recipe: what is to be done.
        ranges: of the activations, for method static; see `activation_ranges`.

    Raises:
        BadInput: the quantizer cannot treat the file.
    """
    from ai_edge_quantizer.quantizer import Quantizer

    try:
        quantizer = Quantizer(str(path))
        _load(quantizer, recipe)
        found = quantizer.quantize(dict(ranges) if ranges is not None else None, enable_progress_report=False)
    except Exception as error:
        raise BadInput(f"ai-edge-quantizer fails: {first_line(error)}", where="quantize") from error
    return bytes(found.quantized_model)


def activation_ranges(path: Path, calls: Sequence[Call], *, bits: int = 8) -> Ranges:
    """Smallest and largest value of every tensor over the calls, for method static.

    ai-edge-quantizer by itself takes a moving average of the calls' extremes, which starts at the first call
    and moves by a twentieth: on 128 calls it cuts values off (14 dB from float where this reaches 40).

    Args:
        path: of the float file.
        calls: by input name, in the order of the file's inputs.
        bits: of the activations.
    """
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    quantizer = Quantizer(str(path))
    _load(quantizer, Recipe(method="static", activation_bits=bits))
    names = _signature_inputs(path)
    calibrator = Calibrator(path.read_bytes(), num_threads=1, qsv_update_func=min_max_update)
    key = next(iter(calibrator.get_signature_list()))
    data = [dict(zip(names, call.values(), strict=True)) for call in calls]
    calibrator.calibrate({key: data}, quantizer._recipe_manager)
    ranges: Ranges = calibrator.get_model_qsvs()
    return ranges


def partitions(model: bytes) -> int:
    """Into how many pieces XNNPACK's part of a model falls; each more is a way out to slower kernels."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return sum(detail["op_name"] == "DELEGATE" for detail in interpreter._get_ops_details())


def without_integer_kernel(path: Path, kinds: Sequence[str], ranges: Ranges) -> tuple[str, ...]:
    """The kinds of operators that XNNPACK computes in float but not in int8.

    Found by trying: where one kind alone is quantized, XNNPACK's part falls into more pieces than in float.
    (Normalisations, softmax, GELU: a vision transformer that is quantized whole is 2.5 times slower than
    float, with these left in float twice as fast.)
    """
    whole = partitions(path.read_bytes())
    found = []
    for kind in kinds:
        recipe = Recipe(method="static", kinds=(kind,))
        with suppress(BadInput):  # nothing of this kind can be quantized
            if partitions(quantized(path, recipe, ranges)) > whole:
                found.append(kind)
    return tuple(found)


def _signature_inputs(path: Path) -> list[str]:
    """What the file's signature calls its inputs, in their order."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    details = interpreter.get_signature_runner().get_input_details()
    names = {detail["index"]: name for name, detail in details.items()}
    return [names[detail["index"]] for detail in interpreter.get_input_details()]


def _load(quantizer: Any, recipe: Recipe) -> None:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName

    every = TFLOperationName.ALL_SUPPORTED
    whole = recipe.kinds is None
    for name in ["*"] if whole else recipe.kinds or ():
        with suppress(ValueError):  # the quantizer has no such kind in this precision: it stays in float
            _add(quantizer, recipe, TFLOperationName(_NAMES.get(name, name)))
    if recipe.group:
        grouped = QuantGranularity[f"BLOCKWISE_{recipe.group}"]
        quantizer.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, recipe.weight_bits, grouped)
    for name in sorted(recipe.kept):
        quantizer.update_quantization_recipe(
            f"^{re.escape(name)}$", every, algorithm_key=AlgorithmName.NO_QUANTIZE
        )


def _add(quantizer: Any, recipe: Recipe, kind: Any) -> None:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    if recipe.method == "static":
        quantizer.add_static_config(".*", kind, recipe.activation_bits, recipe.weight_bits)
    elif recipe.method == "dynamic":
        quantizer.add_dynamic_config(".*", kind, recipe.weight_bits)
    elif recipe.method == "weight-only":
        quantizer.add_weight_only_config(".*", kind, recipe.weight_bits)
    else:
        quantizer.add_weight_only_config(".*", kind, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
