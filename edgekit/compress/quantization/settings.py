"""What can be asked of quantization; every runtime's routes read it and refuse what they have not."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Method = Literal["static", "dynamic", "weight-only", "qat"]


class Settings(BaseModel):
    """Parameters of the step `quantize`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["auto", "static", "dynamic", "weight-only", "qat"] = Field(
        default="auto",
        description="static: weights and activations in integers, ranges from calibration; dynamic: "
        "activation ranges found at run time; weight-only: activations stay float; qat: fine-tuned with the "
        "rounding in place; `auto` tries static, dynamic and weight-only and keeps the best by their figures",
    )
    route: str = Field(
        default="auto",
        description="the library and its recipe, by the name that reports give it; `auto` tries all",
    )
    weights: Literal["int8", "int4"] = Field(
        default="int8",
        description="int4 with method weight-only; with LiteRT, OpenVINO and ExecuTorch dynamic too",
    )
    activations: Literal["int8", "int16"] = Field(
        default="int8", description="int16 with LiteRT, method static"
    )
    group_size: int = Field(
        default=32,
        ge=16,
        le=256,
        description="weights that share a scale, for int4; int8 has one scale a channel",
    )
    ranges: Literal["min-max", "percentile", "entropy"] = Field(
        default="min-max",
        description="how activation ranges come out of the calibration calls; entropy: over a histogram, the "
        "least Kullback-Leibler divergence (onnxruntime) or the least rounding error (nncf)",
    )
    bias_correction: Literal["full", "fast", "none"] = Field(
        default="full", description="of nncf alone: shift biases by the mean error that quantization leaves"
    )
    smooth_quant: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="strength of SmoothQuant, which moves outliers of activations into weights; left out: "
        "the library's own for transformers, 0: none",
    )
    revert: bool = Field(
        default=False,
        description="accuracy-controlled: rank the layers by what their quantization costs and put them back "
        "to float until the quality limit holds",
    )
    samples: int = Field(default=128, ge=1, le=512, description="calibration calls used, at most")
    epochs: int = Field(default=3, ge=1, le=1000, description="of method qat, passes over the training data")
    learning_rate: float = Field(default=5e-4, gt=0, lt=1, description="of method qat")
