"""torch: open an exported program (.pt2) and get a function that runs it."""

from __future__ import annotations

from typing import Any, Callable, List, Mapping, Sequence

PACKAGES = ("torch",)


def version() -> str:
    """The version of the installed runtime.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
    """
    import torch

    return str(torch.__version__)


def open_session(
    model: str,
    *,
    threads: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], List[Any]]:
    """Load the exported program.

    Args:
        model: path of the .pt2 file.
        threads: threads that one inference may use; the process has its own again after it.
        inputs: names of the inputs, in order.
        outputs: not used; the program has the same outputs in the same order.
        options: none; torch rewrites nothing, so it is its own reference.

    Returns:
        A function from input name -> array to the list of output arrays.

    Raises:
        ImportError: the runtime is missing or cannot be loaded.
        Exception: torch's own, when it refuses the file; its classes have no common base of their own.
    """
    import numpy
    import torch

    del outputs, options
    names = list(inputs)
    network = torch.export.load(model).module()

    def run(feeds: Mapping[str, Any]) -> List[Any]:
        arrays = [numpy.require(feeds[name], requirements=["C", "W"]) for name in names]
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.no_grad():
                found = network(*(torch.from_numpy(array) for array in arrays))
        finally:
            torch.set_num_threads(before)
        return [(x.float() if x.dtype == torch.bfloat16 else x).numpy() for x in found]

    return run
