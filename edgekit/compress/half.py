"""The step `half`: 16-bit floats for weights, and for activations where the runtime computes so."""

from __future__ import annotations

from typing import ClassVar, Literal

import onnx
from pydantic import BaseModel, ConfigDict, Field

from edgekit.artifact import Artifact, Converted
from edgekit.compress.context import Context
from edgekit.errors import BadInput
from edgekit.graph.prepare import is_quantized
from edgekit.runtimes.convert import half
from edgekit.task.record import Task


class Half(BaseModel):
    """Store, and where the runtime can compute, in 16-bit floats; inputs and outputs keep their types.

    Worth its size only, unless the device has such arithmetic and its runtime uses it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "graph"

    step: Literal["half"] = "half"
    precision: Literal["float16", "bfloat16"] = Field(
        default="float16", description="bfloat16 with OpenVINO, on CPUs that compute in it"
    )

    def apply(self, converted: Converted, task: Task, context: Context) -> Artifact:
        """The 16-bit artifact.

        Raises:
            BadInput: the network is quantized already, the runtime has no such precision, or its converter
                cannot treat the network.
        """
        if is_quantized(onnx.load(converted.graph)):
            raise BadInput("it is quantized already and is left alone", where=f"the model of {task.name}")
        return half(converted, self.precision, context.folder)
