"""Programs of ExecuTorch: the same outputs, the same bytes, and refusals that name the place."""

import numpy as np
import onnx
import pytest
import torch
from networks import Encoder, PNet, Recurrent, Stateful, TinyCnn, calibrated, noise, task_of
from steps import built
from torch import nn

from edgekit.errors import BadInput
from edgekit.runtimes.executorch import convert
from edgekit.runtimes.float_graph import float_graph
from edgekit.signal import snr_db
from edgekit.verify import run_onnx


class Picks(nn.Module):
    """Named outputs of two types, behind a layer."""

    def forward(self, x):
        return torch.topk(x, 3)


class Inverse(nn.Module):
    def forward(self, x):
        return torch.erfinv(torch.tanh(x))


class Behind(nn.Module):
    """A network whose layer `inner` is the one in question."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x + 1)


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else x * 2


@pytest.mark.parametrize(
    ("network", "example"),
    [
        pytest.param(Stateful, [noise(1, 64), noise(2, 1, 16)], id="two inputs"),
        pytest.param(lambda: Recurrent(nn.LSTM), [noise(1, 7, 16)], id="lstm"),
        pytest.param(lambda: Recurrent(nn.GRU), [noise(1, 4, 16)], id="gru"),
        pytest.param(Encoder, [np.arange(6).reshape(1, 6)], id="integers in"),
        pytest.param(PNet, [noise(1, 3, 24, 24)], id="two outputs"),
        pytest.param(Picks, [noise(1, 8)], id="integers out"),
    ],
)
def test_a_program_gives_the_outputs_of_the_float_graph(network, example, tmp_path):
    torch.manual_seed(0)
    task, graph = built(network(), example)
    artifact = convert(graph, task.model, task, tmp_path, [])
    call = task.named(task.example)
    expected, found = run_onnx(graph, [call])[0], artifact.open()(call)
    assert artifact.outputs == tuple(value.name for value in graph.graph.output)
    assert [(a.shape, a.dtype) for a in found] == [(a.shape, a.dtype) for a in expected]
    for want, got in zip(expected, found, strict=True):
        assert snr_db([want], [got]) > 90


def test_the_same_network_gives_the_same_bytes_without_paths_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task, graph = built(calibrated(TinyCnn(), 1, 16, 16), [noise(1, 1, 16, 16)])
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        contents.append(convert(graph, task.model, task, tmp_path / name, []).path.read_bytes())
    assert contents[0] == contents[1]
    assert b"networks.py" not in contents[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model.pte"]


def test_the_notes_say_what_is_not_xnnpacks_and_where(tmp_path):
    task, graph = built(Behind(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))), [noise(2, 8)])
    notes = []
    convert(graph, task.model, task, tmp_path, notes)
    assert notes == [
        "1 of 3 operators not in XNNPACK but in ExecuTorch's own kernels: "
        "aten.native_layer_norm (module `inner.1`)"
    ]


@pytest.mark.parametrize(
    ("network", "example", "where", "what"),
    [
        (lambda: Behind(Inverse()), [noise(2, 8)], "module `inner`", "no kernel of the operator aten.erfinv"),
        (
            lambda: Behind(nn.Conv3d(1, 2, 3)),
            [noise(1, 1, 6, 6, 6)],
            "module `inner`",
            "no kernel of the operator aten.convolution for this call",
        ),
        (Branch, [noise(2, 8)], "test_executorch.py:", "torch.export cannot follow it"),
        (lambda: torch.jit.script(nn.Linear(8, 8)), [noise(2, 8)], "the model of net", "TorchScript"),
    ],
    ids=["no core operator", "no kernel", "branch", "TorchScript"],
)
def test_what_cannot_be_lowered_is_refused_with_its_place(network, example, where, what, tmp_path):
    task = task_of(network(), example)
    graph = onnx.helper.make_model(onnx.helper.make_graph([], "none", [], []))
    with pytest.raises(BadInput, match=what) as caught:
        convert(graph, task.model, task, tmp_path, [])
    assert where in (caught.value.where or "")
    assert caught.value.todo
    assert "\n" not in str(caught.value)


def test_a_dynamic_axis_is_refused_and_never_fixed(tmp_path):
    task, graph = built(nn.Linear(8, 4), [noise(2, 8)], dynamic={"x": {0: "batch"}})
    with pytest.raises(BadInput, match=r"`batch` is dynamic.*--input-shape"):
        convert(graph, task.model, task, tmp_path, [])


def test_an_onnx_file_is_refused_with_the_runtimes_that_take_it(tmp_path):
    _, graph = built(nn.Linear(8, 4), [noise(2, 8)])
    task = task_of(graph, [noise(2, 8)])
    with pytest.raises(BadInput, match=r"torch networks only.*onnxruntime, openvino or tflite"):
        convert(float_graph(graph, task, opset=20, ir_version=10)[0], None, task, tmp_path, [])
