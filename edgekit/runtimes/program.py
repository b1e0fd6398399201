"""A torch network as an exported program, which ExecuTorch and torch run; what fails in it, and where."""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import BadInput, first_line

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from edgekit.task.record import Task

LIBRARIES = ("torch", "torchao", "executorch", "edgekit")
INNER = "network"  # what the user's network is called inside of what is exported
_FIXED = re.compile(r"You marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)")
_LINE = re.compile(r'File "([^"]+)", line (\d+)')


def export_program(network: torch.nn.Module, task: Task) -> ExportedProgram:
    """The network as torch.export has it, with its outputs as a flat tuple.

    Axes that the task declared dynamic have no upper bound.

    Args:
        network: in evaluation mode; left as it was.
        task: gives the example call and the dynamic axes.

    Raises:
        BadInput: torch.export cannot follow the network; names the line of the user's code where it stopped.
    """
    import torch

    if isinstance(network, torch.jit.ScriptModule):
        raise BadInput(
            "a TorchScript module has no Python code that torch.export could follow",
            where=f"the model of {task.name}",
            todo="bring the torch.nn.Module, or take a runtime that is reached over ONNX",
        )
    forget_recurrent_kernels()
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(
                flat(network), example_tensors(task), dynamic_shapes=_dynamic_shapes(task)
            )
    except Exception as error:
        if met := _FIXED.search(str(error)):
            raise BadInput(
                f"torch.export fixes the axis `{met[1]}` at {met[2]}: a layer goes along it step by step",
                where=f"the model of {task.name}",
                todo="declare a fixed size with --input-shape, or take another runtime",
            ) from error
        raise BadInput(
            f"torch.export cannot follow it: {first_line(error)}",
            where=_line_of(error) or f"the model of {task.name}",
            todo="bring this part into exportable form, or take a runtime that is reached over ONNX",
        ) from error


def flat(network: torch.nn.Module) -> torch.nn.Module:
    """The network with the tensors of its outputs as a tuple, depth first, as `call_module` has them."""
    import torch
    from torch.utils._pytree import tree_leaves

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(tree_leaves(self.network(*inputs)))

    return Flat().eval()


def example_tensors(task: Task) -> tuple[torch.Tensor, ...]:
    """The example call; dynamic axes of size 1 are doubled, because the exporter would fix a size of 1."""
    import torch

    def widen(array: np.ndarray, shape: tuple[int | str, ...]) -> np.ndarray:
        for axis, size in enumerate(shape):
            if isinstance(size, str) and array.shape[axis] == 1:
                array = np.repeat(array, 2, axis)
        return array

    pairs = zip(task.example, task.inputs, strict=True)
    return tuple(torch.from_numpy(np.array(widen(array, spec.shape), order="C")) for array, spec in pairs)


def _dynamic_shapes(task: Task) -> Any:
    """As torch.export takes them: of the one variadic argument, a dict from axis to dimension an input."""
    import torch

    names = sorted({size for spec in task.inputs for size in spec.shape if isinstance(size, str)})
    dims = {name: torch.export.Dim(name, min=1) for name in names}
    if not dims:
        return None
    return (
        tuple(
            {axis: dims[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
            for spec in task.inputs
        ),
    )


def forget_recurrent_kernels() -> None:
    """Let torch look up anew how recurrent layers are exported.

    The ONNX exporter replaces their decomposition while it runs, but torch 2.13 remembers the one it met
    first: from the second export in a process on, the time axis would silently be unrolled and fixed.
    """
    import torch

    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        getattr(torch.ops.aten, name).input._dispatch_cache.clear()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that torch and the libraries upon it give about one another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def place(node: torch.fx.Node) -> str:
    """Where in the user's model a node of an exported program comes from: its module, else its line."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if stack and (path := _module_path(str(stack[-1][0]))):
        return f"module `{path}`"
    lines = _LINE.findall(str(node.meta.get("stack_trace") or ""))
    users = [f"{Path(file).name}:{number}" for file, number in lines if _is_users(file)]
    return f"line {users[-1]}" if users else "the network itself"


def _module_path(path: str) -> str:
    """`network.block.0` as the user knows it: `block.0`."""
    return path.partition("@")[0].removeprefix(INNER).removeprefix(".")


def _line_of(error: BaseException) -> str | None:
    """The innermost line of the user's own code that an exception went through: "net.py:12"."""
    frames = traceback.extract_tb(error.__traceback__)
    return next(
        (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames) if _is_users(f.filename)), None
    )


def _is_users(file: str) -> bool:
    if not file.endswith(".py"):
        return False
    path = Path(file)
    roots = [Path(root) for name in LIBRARIES for root in getattr(sys.modules.get(name), "__path__", ())]
    standard = Path(sysconfig.get_path("stdlib"))
    if any(path.is_relative_to(root) for root in roots):
        return False
    return not path.is_relative_to(standard) or "site-packages" in path.parts


def place_of_operator(program: ExportedProgram, name: str) -> str | None:
    """The place of the first node of this operator, before or after torch takes operators apart.

    Args:
        program: with the traces of the user's code.
        name: without its overload: "aten.lgamma".
    """
    for stage in (lambda: program, program.run_decompositions):
        for node in stage().graph.nodes:
            if node.op == "call_function" and str(node.target).startswith(f"{name}."):
                return place(node)
    return None
