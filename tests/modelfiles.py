"""Model files and task files of every kind, made here, and what loading one that cannot be used says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import EdgekitError
from edgekit.task.load import Given, load_task
from edgekit.task.record import Task

NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)

def make():
    torch.manual_seed(0)
    return Net()
"""
EXAMPLE = """
def example_inputs():
    return torch.ones(1, 4)
"""
TASK = NETWORK + "\ndef model():\n    return make()\n" + EXAMPLE


def load(source: object, **options: Any) -> Task:
    """The task that a source and options make."""
    return load_task(str(source), Given(**options))


def refusal(source: object, *, status: int = 2, **options: Any) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(EdgekitError) as caught:
        load(source, **options)
    assert caught.value.exit_status == status
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(call: Callable[[], Any]) -> EdgekitError | None:
    """The refusal that a call ends in, when it does; any other exception goes on."""
    try:
        call()
    except EdgekitError as error:
        return error
    return None


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Linear(torch.nn.Module):
    """Four numbers in, three out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class TwoInputs(torch.nn.Module):
    """Two inputs, one of them optional; a dict of outputs."""

    def forward(
        self, left: torch.Tensor, right: torch.Tensor, scale: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        both = left + right
        return {"sum": both if scale is None else both * scale, "left": left * 2}


def write_pt2(path: Path, module: torch.nn.Module | None = None, dynamic: bool = False) -> Path:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    program = torch.export.export((module or Linear()).eval(), (torch.ones(2, 4),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def write_torchscript(path: Path, module: torch.nn.Module | None = None) -> Path:
    torch.jit.save(torch.jit.script((module or Linear()).eval()), path)
    return path


def write_onnx(
    path: Path, shape: tuple[int | str | None, ...] = (1, 4), weight: np.ndarray | None = None
) -> Path:
    """`y = x @ w` with 4x3 weights."""
    weight = np.ones((4, 3), np.float32) if weight is None else weight
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (*shape[:-1], 3))],
        [numpy_helper.from_array(weight, "w")],
    )
    return save_graph(graph, path)


def save_graph(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path
