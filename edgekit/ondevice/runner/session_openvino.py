"""OpenVINO: open a model file and get a function that runs it on the CPU."""

from __future__ import annotations

import sys
from typing import Any, Callable, Mapping, Sequence

PACKAGES = ("openvino",)

CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
WIDEST = 2**31 - 1  # the CPU plugin computes 64-bit integers in 32 bits, and wraps without a word


def load() -> Any:
    """The package, without its telemetry: `import openvino` alone would report to its maker over the network.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # the import then fails
    import openvino

    return openvino


def version() -> str:
    """The version of the installed runtime, as its package has it.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
    """
    return str(load().__version__).split("-")[0]


def settings_of(core: Any, threads: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of OpenVINO's CPU plugin for one inference at a time.

    Args:
        core: OpenVINO's, which knows what this CPU can do.
        threads: threads that one inference may use.
        options: see `open_session`.
    """
    precision = options.get("precision", "f32")
    if CAPABILITIES.get(precision) not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        precision = "f32"  # asked for float16, an x86 CPU without it would compute in bfloat16
    settings = {
        # Left to itself OpenVINO takes bfloat16 where the CPU has it, which compares with nothing else.
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # every single-threaded process would sit on the first core
        # Weights compressed to integers are then multiplied by activations in float, as the figures were got.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": options.get("dynamic_group", 0),
    }
    if options.get("reference"):
        settings["LP_TRANSFORMS_MODE"] = "NO"  # the plugin's own switch: what is quantized computes in float
    return settings


def open_session(
    model: str,
    *,
    threads: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], list[Any]]:
    """Open the model file on the CPU.

    Args:
        model: path of the .xml file; the weights lie beside it.
        threads: threads that one inference may use.
        inputs: names of the inputs, in order; the file has the same, or lacks those that nothing reads.
        outputs: names and order of the outputs to return.
        options: "precision": "f32" (when left out), "bf16" or "f16", what floats are computed in where the
            device can; "dynamic_group": as many activations share a scale where they are quantized as they
            come, for models with compressed weights; "reference": True computes quantized layers in float.

    Returns:
        A function from input name -> array to the list of output arrays.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
        RuntimeError: OpenVINO refuses the file.
    """
    package = load()
    core = package.Core()
    compiled = core.compile_model(model, "CPU", settings_of(core, threads, options))
    request = compiled.create_infer_request()
    ports = {name: port for port in compiled.inputs for name in port.get_names()}
    types = {name: ports[name].get_element_type().to_dtype() for name in inputs if name in ports}
    results = [compiled.output(name) for name in outputs]

    def run(feeds: Mapping[str, Any]) -> list[Any]:
        given = {name: _checked(name, feeds[name], dtype) for name, dtype in types.items()}
        for name, array in given.items():
            request.set_tensor(ports[name], package.Tensor(array, shared_memory=True))
        request.infer(share_outputs=True)  # handing it the arrays would do too, and costs a small network 5 %
        return [request.get_tensor(port).data.copy() for port in results]

    return run


def _checked(name: str, array: Any, dtype: Any) -> Any:
    """The array in one piece, as OpenVINO needs it; what it would convert or wrap in silence is refused."""
    import numpy

    if array.dtype != dtype:
        raise ValueError("input %s is %s, expected %s" % (name, array.dtype, dtype))
    is_wide = dtype.itemsize == 8 and dtype.kind in "iu"
    if is_wide and array.size and (array.min() < -WIDEST or array.max() > WIDEST):
        raise ValueError("input %s has a value beyond 32 bits, which OpenVINO cannot take" % name)
    return numpy.require(array, requirements=["C", "W"])
