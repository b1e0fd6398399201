"""Profile: what one board is, and what is known of each runtime's speed on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from edgekit.artifact import RuntimeName
from edgekit.target_record import Record, figure, figures

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
# YAML has lists; the records hold tuples, so that nothing changes them.
Words = Annotated[tuple[Text, ...], Field(strict=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Gain = Annotated[float, Field(gt=0)]


class CostModel(Record):
    """Coefficients of the latency prediction of one runtime on one board, fitted together.

    `plan.cost_model` says how they act. A rate is a share of one core's peak: that of a GPU is far above 1.
    """

    dense: float = Field(gt=0, description="share of the peak rate that convolutions beyond 1x1 reach")
    pointwise: float = Field(gt=0, description="the same for 1x1 convolutions and matrix products")
    depthwise: float = Field(gt=0, description="the same for depthwise and grouped convolutions")
    memory_gbs: float = Field(gt=0, description="bytes moved by a layer in a nanosecond, caches included")
    overhead_us: float = Field(ge=0, description="microseconds that a layer costs beside its work")
    serial_share: float = Field(ge=0, le=1, description="share of the work that more threads do not divide")
    int8_gain: Gain | None = Field(
        default=None, description="rate of int8 kernels over float32 ones; left out where nothing is known"
    )
    fp16_gain: Gain | None = Field(
        default=None, description="the same for float16; 1 where the runtime computes in float32 all the same"
    )
    low: Share = Field(description="low end of the 90 % interval as a factor on the prediction")
    high: float = Field(ge=1, description="high end of the 90 % interval as a factor on the prediction")
    p90: float = Field(ge=1, description="90th percentile of latency over the median")
    p99: float = Field(ge=1, description="99th percentile of latency over the median")

    def gain(self, precision: str) -> float | None:
        """Rate of the kernels of `precision` over those of float32; None where nothing is known of it."""
        return {"float32": 1.0, "int8": self.int8_gain, "float16": self.fp16_gain}.get(precision)


class TensorRT(Record):
    """What the board's own TensorRT is; engines are built by it, on the board."""

    jetpack: Text = Field(description='version of JetPack, in quotes: "6.2"')
    version: Text = Field(description='version of TensorRT in it, in quotes: "10.3.0"')
    opset: int = Field(ge=7, description="newest opset that its parser takes")
    sm: Text = Field(description='compute capability of the GPU, in quotes: "8.7"')
    int8: bool = Field(description="the GPU has int8 arithmetic that TensorRT uses")
    workspace_mb: float = Field(gt=0, description="memory that building an engine may take, 10^6 bytes")


class Emulation(Record):
    """How the board is imitated by QEMU."""

    cpu: Text = Field(description="QEMU's name of the core, or of the nearest that has no instruction more")
    cpuinfo: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")] = Field(
        description="what /proc/cpuinfo says on the board: the file docker/cpuinfo-NAME.txt"
    )


class Profile(Record):
    """Numbers of one board: what it is, and what a model may use on it."""

    name: Text = Field(description="what `profile:` calls it: the file's name")
    title: Text = Field(description="the board in words")
    soc: Text = Field(description="system on chip")
    core: Text = Field(description="the cores that run the model, by their bare name: Cortex-A72")
    board: str = Field(default="", description="how the name begins that the system gives the board, if any")
    arch: Literal["aarch64", "armv7l", "x86_64"] = Field(description="what `uname -m` says there")
    cores: int = figure("cores that a model may use", gt=0, le=1024)
    clock_mhz: float = figure("highest clock of these cores", gt=0)
    memory_mb: float = figure("memory of the board, millions of bytes", gt=0)
    bandwidth_gbs: float = figure("peak of the memory bus, GB/s", gt=0)
    isa: Words = figure("instruction sets that matter, as Linux lists them: asimddp, i8mm, avx2, avx512_vnni")
    macs_per_cycle: float = figure("float32 multiply-accumulates that a core starts in a cycle", gt=0)
    simd_width: int = figure("channels are kept in multiples of this many", gt=0, le=1024)
    reduce_range: bool = figure("int8 weights must stay within 7 bits: x86 without VNNI saturates")
    tensorrt: TensorRT | None = figure("the TensorRT of the board's system, if it has one", default=None)
    emulation: Emulation | None = figure(
        "how the board is imitated on another machine, if it can be", default=None
    )
    cost_model: dict[RuntimeName, CostModel] = figures(
        "coefficients of the latency prediction of each runtime; one that is left out is not predicted",
        default_factory=dict,
    )

    def gain(self, runtime: RuntimeName, precision: str) -> float | None:
        """How much faster `runtime` computes in `precision` than in float32; None where it is unknown."""
        model = self.cost_model.get(runtime)
        return None if model is None else model.gain(precision)
