"""onnxruntime: open a model file and get a function that runs it."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

RUNTIME = "onnxruntime"


def version() -> str:
    """The version of the installed runtime.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
    """
    import onnxruntime

    return str(onnxruntime.__version__)


def open_session(
    model: str, *, threads: int, outputs: Sequence[str] | None = None
) -> Callable[[Mapping[str, Any]], list[Any]]:
    """Open the model file with every graph optimisation, on the CPU.

    Args:
        model: path of the ONNX file.
        threads: threads that one inference may use.
        outputs: names and order of the outputs to return; None means all, in the file's order.

    Returns:
        A function from input name -> array to the list of output arrays.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
        Exception: onnxruntime's own, when it refuses the file; its classes have no common base of their own.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = list(outputs) if outputs is not None else [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, Any]) -> list[Any]:
        return list(session.run(names, dict(feeds)))

    return run
