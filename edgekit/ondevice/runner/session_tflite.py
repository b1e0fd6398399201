"""TFLite: open a model file with ai-edge-litert or tflite-runtime, and get a function that runs it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Iterator, List, Mapping, Sequence, Tuple

PACKAGES = ("ai-edge-litert", "tflite-runtime")
OLD, NUMPY_2 = "tflite-runtime", (2, 18)  # the first whose extension module is built for numpy 2


def version() -> str:
    """The version of the installed runtime.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
    """
    return _interpreter()[2]


def open_session(
    model: str,
    *,
    threads: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], List[Any]]:
    """Open the model file, with XNNPACK where the runtime has it.

    Args:
        model: path of the .tflite file.
        threads: threads that one inference may use.
        inputs: names of the inputs, in the order in which the file has them.
        outputs: names of the outputs, in the order in which the file has them.
        options: "reference": True leaves out XNNPACK (there are plainer kernels still, BUILTIN_REF, but some
            are wrong: those of grouped int4 weights, and of int8 matrix products in tflite-runtime 2.14);
            "not_with": why a package computes this file wrongly or not at all, by its name.

    Returns:
        A function from input name -> array to the list of output arrays.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
        ValueError: the file has other inputs or outputs, or is not for this runtime.
        RuntimeError: the runtime's own, when it refuses the file.
    """
    module, name, _ = _interpreter()
    reason = options.get("not_with", {}).get(name)
    if reason:
        raise ValueError("{} {}; pip install ai-edge-litert".format(name, reason))
    kinds = module.OpResolverType
    with _silence():
        interpreter = module.Interpreter(
            model_path=model,
            num_threads=threads,
            experimental_op_resolver_type=(
                kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if options.get("reference") else kinds.AUTO
            ),
        )
        interpreter.allocate_tensors()
    places = [detail["index"] for detail in interpreter.get_input_details()]
    results = [detail["index"] for detail in interpreter.get_output_details()]
    if len(places) != len(inputs) or len(results) != len(outputs):
        raise ValueError(
            "the file has {} inputs and {} outputs, expected {} and {}".format(
                len(places), len(results), len(inputs), len(outputs)
            )
        )
    feeding = list(zip(inputs, places))  # noqa: B905 - Python 3.8 has no strict; they are as many

    def run(feeds: Mapping[str, Any]) -> List[Any]:
        for name, index in feeding:
            interpreter.set_tensor(index, feeds[name])
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in results]  # copies

    return run


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep back what LiteRT logs at its start, on descriptor 2: that it made its XNNPACK delegate."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # standard error is closed
            copy = os.dup(2)
            stack.callback(os.close, copy)
            stack.callback(os.dup2, copy, 2)
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 2)
            os.close(sink)
        yield


def _interpreter() -> Tuple[Any, str, str]:
    """The module that holds the interpreter, its package's name and version; ai-edge-litert is preferred."""
    try:
        import ai_edge_litert.interpreter as module
    except ImportError as error:
        return _old_interpreter(error)
    return module, PACKAGES[0], _version_of(PACKAGES[0])


def _old_interpreter(missing: ImportError) -> Tuple[Any, str, str]:
    try:
        import tflite_runtime.interpreter as module
    except ImportError as error:
        if (error.name or "").split(".")[0] != "tflite_runtime":
            raise
        raise ImportError("neither ai-edge-litert ({}) nor tflite-runtime".format(missing)) from error
    import numpy

    found = _version_of(OLD)
    if int(numpy.__version__.split(".")[0]) >= 2 and tuple(map(int, found.split(".")[:2])) < NUMPY_2:
        # It imports, and dies when an interpreter is made, with a message that names neither.
        raise ImportError(
            "tflite-runtime {} needs numpy < 2, found {}; pip install 'numpy<2'".format(
                found, numpy.__version__
            )
        )
    return module, OLD, found


def _version_of(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)
