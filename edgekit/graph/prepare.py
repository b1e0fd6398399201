"""Bring an ONNX file from anywhere into the form that the steps and the runtimes expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper, version_converter

from edgekit.errors import BadInput, count, first_line

NEWEST_OPSET, NEWEST_IR = 26, 13  # that onnxruntime 1.31 takes here; the onnx package writes newer files
LEAST_OPSET = 13  # per-channel DequantizeLinear appears there
_INTEGER_OPS = frozenset(
    "QuantizeLinear DequantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger QAttention QGemm "
    "DynamicQuantizeLinear DynamicQuantizeMatMul DynamicQuantizeLSTM QLinearAdd MatMulNBits".split()
)

_RANDOM_OPS = frozenset(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli".split()
)


def prepare(model: onnx.ModelProto, *, opset: int, ir_version: int) -> tuple[onnx.ModelProto, list[str]]:
    """A copy of `model` that the quantizers and the device's runtime take, and what was done to it.

    Weights in Constant nodes become initializers, old operator sets are converted up, declared shapes of
    intermediate values (which may be wrong) are dropped, and the IR version is lowered to the runtime's.

    Args:
        model: left as it was.
        opset: the newest operator set that the device's runtime takes.
        ir_version: the newest IR version that it takes.

    Raises:
        BadInput: the graph cannot be brought to an operator set that the runtime takes.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    notes = []
    _drop_weights_from_inputs(prepared.graph)
    # Before version 4 of the file format weights had to be inputs too, and the converter insists on it.
    prepared.ir_version = max(prepared.ir_version, 4)
    found = opset_of(prepared)
    if found < LEAST_OPSET or found > opset:
        prepared, note = _convert(prepared, max(LEAST_OPSET, min(found, opset)))
        notes.append(note)
    # The innermost first: a graph that is rewritten holds copies of the bodies in it.
    if folded := sum(map(fold_constants, reversed(graphs(prepared.graph)))):
        notes.append(f"{count(folded, 'weight')} moved from Constant nodes into initializers")
    del prepared.graph.value_info[:]
    prepared.ir_version = min(prepared.ir_version, ir_version)
    return prepared, notes


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set; 1 where none is declared."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether any node, in bodies of If and Loop too, already computes on integers."""
    return any(node.op_type in _INTEGER_OPS for graph in graphs(model.graph) for node in graph.node)


def has_bodies(graph: onnx.GraphProto) -> bool:
    """Whether it has control flow: If, Loop or Scan."""
    return len(graphs(graph)) > 1


def random_node(graph: onnx.GraphProto) -> str | None:
    """The first node, in bodies of If and Loop too, that draws random numbers; None when none does."""
    names = (n.name or n.output[0] for g in graphs(graph) for n in g.node if n.op_type in _RANDOM_OPS)
    return next(names, None)


def own_outputs(graph: onnx.GraphProto) -> None:
    """Let a node write each output that is an initializer or an input itself, in place.

    onnxruntime runs such a graph, but the steps that rewrite graphs name the value twice.
    """
    written = {name for node in graph.node for name in node.output}
    for output in graph.output:
        if output.name in written or any(value.name == output.name for value in graph.input):
            continue
        constant = next(tensor for tensor in graph.initializer if tensor.name == output.name)
        constant.name = f"{output.name}_value"
        for node in graph.node:
            node.input[:] = [constant.name if name == output.name else name for name in node.input]
        graph.node.append(helper.make_node("Identity", [constant.name], [output.name], name=output.name))


def graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graph and all bodies of its control-flow nodes."""
    bodies = [
        body
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
        for body in graphs(attribute.g)
    ]
    return [graph, *bodies]


def fold_constants(graph: onnx.GraphProto) -> int:
    """Turn Constant nodes of a graph, not of the bodies in it, into initializers, in place; how many.

    One that writes an output of the graph stays: a body must have a node for it.
    """
    outputs = {value.name for value in graph.output}
    kept, folded = [], 0
    for node in graph.node:
        tensor = None if node.output[0] in outputs else _tensor_of(node)
        if tensor is None:
            kept.append(node)
            continue
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        folded += 1
    del graph.node[:]
    graph.node.extend(kept)
    return folded


def _tensor_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    attribute = node.attribute[0]
    tensor = onnx.TensorProto()
    if attribute.name == "value":
        tensor.CopyFrom(attribute.t)
        return tensor
    kinds: dict[str, tuple[int, Sequence[float | int]]] = {
        "value_float": (onnx.TensorProto.FLOAT, [attribute.f]),
        "value_floats": (onnx.TensorProto.FLOAT, attribute.floats),
        "value_int": (onnx.TensorProto.INT64, [attribute.i]),
        "value_ints": (onnx.TensorProto.INT64, attribute.ints),
    }
    if attribute.name not in kinds:
        return None
    data_type, values = kinds[attribute.name]
    shape = [len(values)] if attribute.name.endswith("s") else []
    return helper.make_tensor(node.output[0], data_type, shape, list(values))


def _drop_weights_from_inputs(graph: onnx.GraphProto) -> None:
    """Files of IR version 3 list initializers as inputs too; runtimes then cannot fold them."""
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)


def _convert(model: onnx.ModelProto, opset: int) -> tuple[onnx.ModelProto, str]:
    """The model at another operator set, and what was done.

    An old one that no rule converts stays as it was: runtimes still take it.
    """
    found = opset_of(model)
    try:
        converted = version_converter.convert_version(model, opset)
    except Exception as error:
        if found < opset:
            return model, f"operator set {found} kept, it cannot be converted to {opset}: {first_line(error)}"
        raise BadInput(
            f"operator set {found} cannot be converted to {opset}: {first_line(error)}",
            where="the model",
            todo=f"export it again with opset {opset}",
        ) from error
    return converted, f"operator set converted from {found} to {opset}"


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """Declared dimensions: an int, the name of a dynamic one, or "?" where nothing is said."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    )


def fixed_axes(model: onnx.ModelProto, asked: Mapping[str, Mapping[int, str]]) -> list[str]:
    """The dimensions that were asked dynamic and are not, as "input `x` axis 1 is fixed at 16"."""
    shapes = {value.name: shape_of(value) for value in model.graph.input}
    return [
        f"input `{name}` axis {axis} is fixed at {shapes[name][axis]}"
        for name, axes in asked.items()
        for axis in axes
        if name in shapes and isinstance(shapes[name][axis], int)
    ]
