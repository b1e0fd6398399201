"""What a program file of ExecuTorch (.pte) computes on integers, and what in float."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.artifact import Artifact

XNNPACK = "XnnpackBackend"
# Of XNNPACK's nodes those with weights, by the field that names the weights.
_WEIGHTS = {
    "XNNConv2d": "filter_id",
    "XNNConvTranspose2d": "filter_id",
    "XNNDepthwiseConv2d": "filter_id",
    "XNNFullyConnected": "filter_id",
    "XNNBatchMatrixMultiply": "input2_id",
}
_PRODUCTS = ("aten::convolution", "aten::addmm", "aten::mm", "aten::bmm", "aten::linear")
_FLOATS = ("xnn_datatype_fp32", "xnn_datatype_fp16")


def float_products(artifact: Artifact) -> int:
    """Convolutions and matrix products of a program whose second factor is float."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(artifact.path.read_bytes()).program
    plan = program.execution_plan[0]
    own = [plan.operators[call.op_index].name for call in _kernel_calls(plan)]
    return sum(name in _PRODUCTS for name in own) + sum(
        _is_float_product(node, types) for nodes, types in _xnnpack(program) for node in nodes
    )


def _kernel_calls(plan: Any) -> Iterator[Any]:
    for chain in plan.chains:
        for instruction in chain.instructions:
            if hasattr(instruction.instr_args, "op_index"):
                yield instruction.instr_args


def _xnnpack(program: Any) -> Iterator[tuple[list[dict[str, Any]], dict[int, str]]]:
    """Of each of XNNPACK's parts the nodes, and the type of each value by its number."""
    for delegate in program.execution_plan[0].delegates:
        if delegate.id != XNNPACK:
            continue
        graph = _read(bytes(program.backend_delegate_data[delegate.processed.index].data))
        types = {}
        for value in graph["xvalues"]:
            union = value["xvalue_union"]
            tensor = union.get("tensor_value", union)
            types[tensor["id_out"]] = tensor["datatype"]
        yield graph["xnodes"], types


def _is_float_product(node: dict[str, Any], types: dict[int, str]) -> bool:
    field = _WEIGHTS.get(node["xnode_union_type"].removeprefix("_"))
    return field is not None and types[node["xnode_union"][field]] in _FLOATS


def _read(payload: bytes) -> Any:
    """XNNPACK's own flatbuffer as JSON data."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import (
        XNNHeader,
        _get_schema_bytes,
    )
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    end = header.flatbuffer_offset + header.flatbuffer_size
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(_get_schema_bytes())
        (folder / "graph.bin").write_bytes(payload[header.flatbuffer_offset : end])
        _flatc_decompile(name, str(folder / "schema.fbs"), str(folder / "graph.bin"), ["--raw-binary"])
        # Ranges of activations are infinite where there is no ReLU, which flatc writes and JSON has not.
        return json.loads(re.sub(r"(?<=[:\[,] )-?(inf|nan)\b", "null", (folder / "graph.json").read_text()))
