"""ExecuTorch: open a program (.pte) and get a function that runs it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import sys
import tempfile
from typing import Any, Callable, Iterator, List, Mapping, Sequence

PACKAGES = ("executorch", "torch")

# What ExecuTorch logs at every start, wherever it runs; its other lines are reasons of failures.
_CHATTER = ("cpuinfo_utils.cpp", "threadpool.cpp")


class _Pool:
    """ExecuTorch has one thread pool a process, and whatever was loaded before it is set anew is void."""

    generation = 0


def version() -> str:
    """The version of the installed runtime.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
    """
    _library()
    return importlib.metadata.version("executorch")


def open_session(
    model: str,
    *,
    threads: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], List[Any]]:
    """Load the program's method `forward`.

    Sessions with different numbers of threads may live in one process; the one whose turn it is sets the
    pool and, where that changes it, loads its program again (0.2 ms for a small one, in that call).

    Args:
        model: path of the .pte file.
        threads: threads that one inference may use.
        inputs: names of the inputs, in order.
        outputs: not used; the program has the same outputs in the same order.
        options: none; there is no reference mode: which operators are XNNPACK's is fixed in the file.

    Returns:
        A function from input name -> array to the list of output arrays.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
        RuntimeError: ExecuTorch refuses the file, or a call; with its own reason.
    """
    import numpy
    import torch

    del outputs, options
    library, names = _library(), list(inputs)
    program, method = _load(library, model, threads)
    generation = _Pool.generation

    def run(feeds: Mapping[str, Any]) -> List[Any]:
        nonlocal program, method, generation
        if generation != _Pool.generation or library._threadpool_get_thread_count() != threads:
            program = method = None
            program, method = _load(library, model, threads)
            generation = _Pool.generation
        arrays = [numpy.require(feeds[name], requirements=["C", "W"]) for name in names]
        tensors = [torch.from_numpy(array) for array in arrays]
        try:
            found = method.call(tensors)
        except RuntimeError:
            with _silence():  # its log says why, the exception does not
                method.call(tensors)
            raise
        return [(x.float() if x.dtype == torch.bfloat16 else x).numpy() for x in found]

    return run


def _library() -> Any:
    """ExecuTorch's runtime alone: its public module `portable_lib` imports the exporter, and all it needs."""
    import torch  # noqa: F401 - brings the libraries that ExecuTorch is linked with

    with _silence():
        from executorch.extension.pybindings import _C
    return _C


def _load(library: Any, model: str, threads: int) -> Any:
    with _silence():
        if library._threadpool_get_thread_count() != threads:
            _Pool.generation += 1
            library._unsafe_reset_threadpool(threads)
        program = library._load_program(model)
        return program, program.load_method("forward")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep back what ExecuTorch logs: most of it to `sys.stderr`, at its start to descriptor 2.

    Raises:
        RuntimeError: the block did; with the first line that was logged for a reason.
    """
    log = io.StringIO()
    with tempfile.TemporaryFile() as sink, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error is closed
            sys.stderr.flush()
            stack.callback(_give_back, os.dup(2))
            os.dup2(sink.fileno(), 2)
        stack.enter_context(contextlib.redirect_stderr(log))
        try:
            yield
        except RuntimeError as error:
            lines = [line for line in log.getvalue().splitlines() if line.strip()]
            reasons = [line for line in lines if not any(name in line for name in _CHATTER)]
            if not reasons:
                raise
            # "[op_x.cpp:3] Check failed ...", then "[method.cpp:9] KernelCall failed ... in operator aten::x"
            operator = [line.split("in operator ", 1)[1] for line in reasons if "in operator " in line]
            raise RuntimeError("; ".join([*operator[:1], reasons[0].split("] ", 1)[-1]])) from error


def _give_back(copy: int) -> None:
    os.dup2(copy, 2)
    os.close(copy)
