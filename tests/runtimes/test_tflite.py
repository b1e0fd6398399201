"""TFLite files do what their network does, or are refused in one line that says where."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from modelfiles import TwoInputs
from networks import (
    DsCnn,
    Encoder,
    Grouped,
    ONet,
    PNet,
    Recurrent,
    Stateful,
    Tagger,
    TinyCnn,
    UNet,
    Vit,
    calibrated,
    calls_of,
    noise,
    task_of,
)
from onnx import TensorProto, helper
from steps import converted_of, fresh
from torch import nn

from edgekit.errors import BadInput
from edgekit.runtimes.convert import half
from edgekit.runtimes.tflite import convert
from edgekit.runtimes.tflite_file import left_in_float
from edgekit.signal import snr_db
from edgekit.verify import run_onnx


class Given(nn.Module):
    """A network whose forward is one function of its layers and the inputs."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), forward

    def forward(self, *inputs):
        return self.function(self.layers, *inputs)


KINDS = {
    "residual": (TinyCnn(), [noise(1, 1, 16, 16)]),
    "audio": (calibrated(DsCnn(), 1, 49, 10), [noise(1, 1, 49, 10)]),
    "voice with a state": (Stateful(), [noise(1, 512), noise(2, 1, 16)]),
    "text": (Encoder(), [np.arange(12)[None]]),
    "vision transformer": (Vit(), [noise(1, 1, 16, 16)]),
    "segmentation": (calibrated(UNet(), 3, 32, 32), [noise(1, 3, 32, 32)]),
    "proposals": (PNet(), [noise(1, 3, 24, 32)]),
    "landmarks": (ONet(), [noise(1, 3, 24, 24)]),
    "labels": (calibrated(Tagger(), 3, 32, 32), [noise(1, 3, 32, 32)]),
    "shared layer": (calibrated(Grouped(), 3, 16, 16), [noise(1, 3, 16, 16)]),
    "recurrent": (Recurrent(nn.LSTM), [noise(1, 8, 16)]),
    "a batch": (TinyCnn(), [noise(4, 1, 16, 16)]),
}
INTERFACES = {
    "a dict of two": (TwoInputs(), [noise(2, 3), noise(2, 3, seed=1)]),
    "twelve outputs": (Given(lambda _, x: tuple(x * n for n in range(1, 13))), [noise(2, 3)]),
    "a nest": (Given(lambda _, x: {"b": [x + 1, (x * 2, x - 3)], "a": x * 5}), [noise(2, 3)]),
    "an input as output": (Given(lambda _, x: (x, x + 1)), [noise(2, 3)]),
    "one output twice": (Given(lambda _, x: (x.abs(), x.abs() + 1)), [noise(2, 3)]),
    "an unused input": (Given(lambda _, _x, y: y * 2), [noise(2, 3), noise(2, 3, seed=1)]),
    "int64 scalar": (Given(lambda _, x, s: x + s), [noise(2, 3), np.array(3, np.int64)]),
    "int32": (Given(lambda _, x: x * 2), [np.arange(6, dtype=np.int32)]),
    "bool": (Given(lambda _, x, m: torch.where(m, x, -x)), [noise(2, 3), noise(2, 3, seed=2) > 0]),
    "class numbers": (Given(lambda _, x: x.argmax(1)), [noise(2, 3)]),
}


def onnx_file(network, example):
    """The network's float graph as a task that brings an ONNX file has it, and the task."""
    from edgekit.runtimes.float_graph import float_graph

    graph = float_graph(task_of(network, example).model, task_of(network, example), opset=20, ir_version=10)[
        0
    ]
    return graph, task_of(graph, example)


def agreement(artifact, graph, calls):
    """dB of the output that agrees least, its type and shape being the graph's."""
    run, worst = artifact.open(), np.inf
    for call, expected in zip(calls, run_onnx(graph, calls), strict=True):
        got = run(call)
        assert [(a.dtype, a.shape) for a in got] == [(a.dtype, a.shape) for a in expected]
        worst = min([worst, *(snr_db([a], [b]) for a, b in zip(expected, got, strict=True))])
    return worst


@pytest.mark.parametrize("kind", [*KINDS, *INTERFACES])
def test_every_network_and_interface_agrees_with_its_float_graph(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(fresh(tmp_path))
    network, example = {**KINDS, **INTERFACES}[kind]
    task, converted = converted_of(network, example, "tflite", tmp_path)
    assert agreement(converted.artifact, onnx.load(converted.graph), calls_of(task, 3)) > 90
    assert not list(Path().iterdir())  # libraries leave nothing where the user works


@pytest.mark.parametrize(
    "kind",
    ["residual", "text", "landmarks", "recurrent"],
)
def test_an_onnx_file_is_converted_too(kind, tmp_path):
    graph, task = onnx_file(*KINDS[kind])
    notes = []
    artifact = convert(graph, None, task, tmp_path, notes)
    assert agreement(artifact, graph, calls_of(task, 3)) > 90
    assert notes == ["converted for tflite from the ONNX graph, by onnx2fx"]


def test_a_torchscript_network_goes_over_its_graph(tmp_path):
    network = torch.jit.script(TinyCnn().eval())
    _, converted = converted_of(network, [noise(1, 1, 16, 16)], "tflite", tmp_path)
    calls = [{"x": noise(1, 1, 16, 16, seed=3)}]
    assert agreement(converted.artifact, onnx.load(converted.graph), calls) > 90


def refusal(graph, network, task, folder):
    with pytest.raises(BadInput) as caught:
        convert(graph, network, task, folder, [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_dynamic_axis_is_refused(tmp_path):
    task = task_of(TinyCnn(), [noise(1, 1, 16, 16)], dynamic={"x": {0: "batch"}})
    assert refusal(onnx.ModelProto(), task.model, task, tmp_path) == (
        "input `x` of net: the axis `batch` is dynamic; a TFLite file is made for sizes known beforehand; "
        "declare a fixed size with --input-shape, or take another runtime"
    )


class Special(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), Given(lambda _, x: torch.special.gammaln(x.abs() + 1)))

    def forward(self, x):
        return self.inner(x)


def test_an_operator_without_counterpart_is_named_with_its_place(tmp_path):
    task = task_of(Special(), [noise(2, 4)])
    assert refusal(onnx.ModelProto(), task.model, task, tmp_path) == (
        "module `inner.1`: TFLite has no counterpart of the operator aten.lgamma; replace it in the network, "
        "or take another runtime (onnxruntime, openvino)"
    )


def test_a_branch_on_values_is_refused_with_its_line(tmp_path):
    task = task_of(Given(lambda _, x: x if x.sum() > 0 else -x), [noise(2, 4)])
    line = refusal(onnx.ModelProto(), task.model, task, tmp_path)
    assert line.startswith("test_tflite.py:")
    assert "torch.export cannot follow it" in line


def graph_of(*nodes):
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 4))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def test_a_node_that_a_trace_would_get_wrong_is_refused(tmp_path):
    graph = graph_of(
        helper.make_node("NonZero", ["x"], ["places"], name="where"),
        helper.make_node("Cast", ["places"], ["y"], to=TensorProto.FLOAT),
    )
    assert refusal(graph, None, task_of(graph, [noise(2, 4)]), tmp_path) == (
        "node `where` in the ONNX file of net: TFLite takes no NonZero: what it gives depends on the values "
        "of its inputs; take another runtime (onnxruntime, openvino)"
    )


def test_an_unknown_node_of_an_onnx_file_is_refused(tmp_path):
    graph = graph_of(helper.make_node("FancyOp", ["x"], ["y"], name="fancy", domain="ai.edgekit.none"))
    line = refusal(graph, None, task_of(graph, [noise(2, 4)]), tmp_path)
    assert "FancyOp" in line
    assert "the ONNX file of net" in line


def test_half_stores_weights_in_half_the_bytes(tmp_path):
    task, converted = converted_of(TinyCnn(48), [noise(1, 1, 16, 16)], "tflite", tmp_path)
    artifact = half(converted, "float16", fresh(tmp_path))
    assert artifact.size_bytes < 0.55 * converted.artifact.size_bytes
    assert agreement(artifact, onnx.load(converted.graph), calls_of(task, 3)) > 55
    with pytest.raises(BadInput, match="TFLite has no bfloat16 weights"):
        half(converted, "bfloat16", fresh(tmp_path))


def test_the_plain_kernels_agree_with_xnnpack(tmp_path):
    task, converted = converted_of(TinyCnn(), [noise(1, 1, 16, 16)], "tflite", tmp_path)
    call = calls_of(task, 1)[0]
    fast, plain = (converted.artifact.open(reference=reference)(call) for reference in (False, True))
    assert snr_db(plain, fast) > 90
    assert left_in_float(converted.artifact) == 5


DIGEST = """
import sys, tempfile
from pathlib import Path
import numpy as np, torch
from networks import TinyCnn, noise, task_of
from steps import context_of, converted_of, fresh
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.tflite_ways import WAYS
torch.manual_seed(0)
calls = [(noise(1, 1, 16, 16, seed=seed),) for seed in range(4)]
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    task, converted = converted_of(TinyCnn(), calls[0], "tflite", folder, calls=calls)
    context = context_of(task, converted.graph, folder)
    found = [converted.artifact.digest()]
    for way in WAYS:
        if way.name in ("aeq-static", "aeq-dynamic", "pt2e"):
            found.append(way.make(converted, Settings(), task, context, fresh(folder)).digest())
print("digests", *found)
"""


def test_the_same_network_gives_the_same_bytes_in_every_process():
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "tests")])
    lines = []
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        lines.append(next((x for x in done.stdout.splitlines() if x.startswith("digests")), done.stderr))
    assert lines[0] == lines[1]
    assert len(lines[0].split()) == 5
