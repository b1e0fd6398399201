"""What OpenVINO's CPU plugin really computes in integers on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekit.artifact import Artifact
from edgekit.ondevice.runner.session_openvino import load, settings_of

HEAVY = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})


def left_in_float(artifact: Artifact) -> int:
    """How many convolutions and matrix products have a float kernel; see `kernels`."""
    return sum(not name.lower().endswith("i8") for name in kernels(artifact).values())


def kernels(artifact: Artifact) -> dict[str, str]:
    """The kernel of each convolution and matrix product, as the plugin names it: "brgconv_avx512_I8".

    A model is compiled as a device would run it. Matrix products that the plugin fuses into one kernel with
    the rest of an attention block are not among them. Where activations are quantized as they come (way
    "nncf-dynamic") the plugin names the kernels as if they were float.
    """
    core = load().Core()
    compiled = core.compile_model(str(artifact.path), "CPU", settings_of(core, 1, artifact.options))
    return dict(_kernels(compiled))


def _kernels(compiled: Any) -> Iterator[tuple[str, str]]:
    for node in compiled.get_runtime_model().get_ordered_ops():
        known = node.get_rt_info()
        if known["layerType"].astype(str) in HEAVY:
            yield node.get_friendly_name(), known["primitiveType"].astype(str)
