"""The step `half`: 16-bit floats for weights and activations."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

import onnx
from pydantic import BaseModel, ConfigDict

from edgekit.compress.context import Context
from edgekit.errors import BadInput, first_line
from edgekit.graph.prepare import has_bodies, is_quantized
from edgekit.graph.run import refuse_crash
from edgekit.task.record import Task

RECURRENT = ("LSTM", "GRU", "RNN")  # onnxruntime dies of them in float16


class Half(BaseModel):
    """Store and compute in float16; inputs and outputs keep their types.

    Worth its size only, unless the device has float16 arithmetic and its runtime uses it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "graph"

    step: Literal["half"] = "half"

    def apply(self, model: onnx.ModelProto, task: Task, context: Context) -> onnx.ModelProto:
        """The float16 graph.

        Raises:
            BadInput: the graph is quantized already, or the converter cannot treat it.
        """
        del context
        if is_quantized(model):
            raise BadInput("it is quantized already and is left alone", where=f"the model of {task.name}")
        if has_bodies(model.graph):
            raise BadInput("If, Loop and Scan nodes cannot be stored as float16", where=f"half {task.name}")
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        try:
            half: onnx.ModelProto = convert_float_to_float16(
                copy, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *RECURRENT]
            )
        except Exception as error:
            raise BadInput(f"cannot be stored as float16: {first_line(error)}", where=task.name) from error
        if half.ByteSize() >= model.ByteSize():
            raise BadInput("float16 makes it no smaller", where=f"half {task.name}")
        del half.graph.value_info[:]
        _name_apart(half.graph)
        refuse_crash(half)
        return half


def _name_apart(graph: onnx.GraphProto) -> None:
    """Number the nodes that share a name, in place: the converter names two casts of one value alike."""
    met: Counter[str] = Counter()
    for node in graph.node:
        met[node.name] += 1
        if met[node.name] > 1:
            node.name = f"{node.name}_{met[node.name]}"
