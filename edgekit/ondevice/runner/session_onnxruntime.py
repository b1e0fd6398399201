"""onnxruntime: open a model file and get a function that runs it."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

PACKAGES = ("onnxruntime",)


def version() -> str:
    """The version of the installed runtime.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
    """
    import onnxruntime

    return str(onnxruntime.__version__)


def open_session(
    model: str,
    *,
    threads: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], list[Any]]:
    """Open the model file with every graph optimisation.

    Args:
        model: path of the ONNX file.
        threads: threads that one inference may use.
        inputs: names of the inputs, in order.
        outputs: names and order of the outputs to return.
        options: "providers": onnxruntime's execution providers, best first (the CPU's alone when left out);
            "reference": True turns the optimiser off.

    Returns:
        A function from input name -> array to the list of output arrays; its attribute `providers` are the
        execution providers in use.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
        Exception: onnxruntime's own, when it refuses the file; its classes have no common base of their own.
    """
    import onnxruntime

    del inputs  # the file has the same names
    level = onnxruntime.GraphOptimizationLevel
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = (
        level.ORT_DISABLE_ALL if options.get("reference") else level.ORT_ENABLE_ALL
    )
    settings.log_severity_level = 3
    wanted = options.get("providers", [])
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(model, settings, providers=[*providers, "CPUExecutionProvider"])
    names = list(outputs)

    def run(feeds: Mapping[str, Any]) -> list[Any]:
        return list(session.run(names, dict(feeds)))

    run.providers = session.get_providers()  # type: ignore[attr-defined]

    return run
