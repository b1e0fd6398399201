"""The step `half`: 16-bit floats for weights and activations."""

from __future__ import annotations

from typing import ClassVar, Literal

import onnx
from pydantic import BaseModel, ConfigDict

from edgekit.compress.context import Context
from edgekit.errors import BadInput, first_line
from edgekit.graph.prepare import is_quantized
from edgekit.task.record import Task


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
        from onnxruntime.transformers.float16 import convert_float_to_float16

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        try:
            half: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
        except Exception as error:
            raise BadInput(f"cannot be stored as float16: {first_line(error)}", where=task.name) from error
        del half.graph.value_info[:]
        return half
