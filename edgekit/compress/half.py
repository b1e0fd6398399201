"""The step `half`: 16-bit floats for weights, and for activations where the runtime computes so."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.artifact import Artifact, Converted
from edgekit.compress.context import Context
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
        "float16", description="bfloat16 with OpenVINO, on CPUs that compute in it"
    )

    def apply(self, converted: Converted, task: Task, context: Context) -> Artifact:
        """The 16-bit artifact.

        Raises:
            BadInput: the runtime has no such precision, or its converter cannot treat the network.
        """
        del task
        return half(converted, self.precision, context.folder)
