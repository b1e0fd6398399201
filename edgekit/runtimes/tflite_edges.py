"""Float inputs and outputs for a .tflite file that takes and gives integers."""

from __future__ import annotations

from typing import Any


def with_float_edges(content: bytes) -> bytes:
    """The file with a quantizing operator behind each int8 input, and a dequantizing one before each output.

    LiteRT's converter moves the rounding of a network that PT2E quantized out of the file.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    moved = _move_inputs(model) + _move_outputs(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)) if moved else content


def _move_inputs(model: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema

    graph, moved = model.subgraphs[0], 0
    for index, place in enumerate(list(graph.inputs)):
        if graph.tensors[place].type != schema.TensorType.INT8 or not _has_scale(graph.tensors[place]):
            continue
        new = _float_twin(graph, place)
        graph.operators.insert(0, _operator(model, schema.BuiltinOperator.QUANTIZE, new, place))
        graph.inputs[index] = new
        _rename(model, "inputs", place, new)
        moved += 1
    return moved


def _move_outputs(model: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema

    graph, moved = model.subgraphs[0], 0
    for index, place in enumerate(list(graph.outputs)):
        if graph.tensors[place].type != schema.TensorType.INT8 or not _has_scale(graph.tensors[place]):
            continue
        new = _float_twin(graph, place)
        graph.operators.append(_operator(model, schema.BuiltinOperator.DEQUANTIZE, place, new))
        graph.outputs[index] = new
        _rename(model, "outputs", place, new)
        moved += 1
    return moved


def _has_scale(tensor: Any) -> bool:
    """Whether the integers stand for floats; those of a network that takes integers do not."""
    scale = getattr(tensor.quantization, "scale", None)
    return scale is not None and len(scale) == 1


def _float_twin(graph: Any, place: int) -> int:
    """The place of a new float tensor like this one."""
    from ai_edge_litert import schema_py_generated as schema

    old, new = graph.tensors[place], schema.TensorT()
    new.shape, new.shapeSignature, new.hasRank = old.shape, old.shapeSignature, old.hasRank
    new.type, new.buffer = schema.TensorType.FLOAT32, 0
    new.name = old.name + b"_float"
    graph.tensors.append(new)
    return len(graph.tensors) - 1


def _operator(model: Any, kind: int, read: int, written: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, kind)
    operator.inputs, operator.outputs = [read], [written]
    return operator


def _code(model: Any, kind: int) -> int:
    """The place of an operator's code among the file's; added where it is not there."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if kind in (code.builtinCode, code.deprecatedBuiltinCode):
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 2  # the first with int8
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _rename(model: Any, side: str, old: int, new: int) -> None:
    """Let the signatures name the new tensor."""
    for signature in model.signatureDefs or ():
        for entry in getattr(signature, side):
            if entry.tensorIndex == old:
                entry.tensorIndex = new
