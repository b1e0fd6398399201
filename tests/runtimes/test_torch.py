"""Programs that torch itself runs."""

import numpy as np
import pytest
import torch
from networks import Encoder, PNet, Recurrent, Stateful, TinyCnn, calibrated, noise, task_of
from steps import built
from torch import nn

from edgekit.errors import BadInput
from edgekit.runtimes.torch import convert
from edgekit.signal import snr_db
from edgekit.verify import run_onnx


@pytest.mark.parametrize(
    ("network", "example", "dynamic"),
    [
        (Stateful, [noise(1, 64), noise(2, 1, 16)], {}),
        (lambda: Recurrent(nn.LSTM), [noise(1, 7, 16)], {}),
        (Encoder, [np.arange(6).reshape(1, 6)], {}),
        (PNet, [noise(1, 3, 24, 24)], {"x": {0: "batch"}}),
    ],
    ids=["two inputs", "lstm", "integers in", "any batch"],
)
def test_a_program_gives_the_outputs_of_the_float_graph_at_other_sizes_too(
    network, example, dynamic, tmp_path
):
    torch.manual_seed(0)
    task, graph = built(network(), example, dynamic=dynamic)
    artifact = convert(graph, task.model, task, tmp_path, [])
    run = artifact.open()
    axes = list(dynamic.get("x", {}))
    longer = [np.concatenate([array] * 3, axes[0]) if axes else array for array in example]
    for arrays in (example, longer):
        call = task.named(tuple(arrays))
        for want, got in zip(run_onnx(graph, [call])[0], run(call), strict=True):
            assert got.shape == want.shape
            assert snr_db([want], [got]) > 90


def test_the_same_network_gives_the_same_bytes_without_paths(tmp_path):
    task, graph = built(calibrated(TinyCnn(), 1, 16, 16), [noise(1, 1, 16, 16)])
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        contents.append(convert(graph, task.model, task, tmp_path / name, []).path.read_bytes())
    assert contents[0] == contents[1]
    assert b"networks.py" not in contents[0]


def test_an_axis_that_torch_would_fix_is_refused(tmp_path):
    task, graph = built(Recurrent(nn.LSTM), [noise(1, 7, 16)], dynamic={"x": {1: "frames"}})
    with pytest.raises(BadInput, match=r"fixes the axis `frames` at 7.*--input-shape"):
        convert(graph, task.model, task, tmp_path, [])


def test_an_onnx_file_is_refused(tmp_path):
    _, graph = built(nn.Linear(8, 4), [noise(2, 8)])
    with pytest.raises(BadInput, match="torch networks only"):
        convert(graph, None, task_of(graph, [noise(2, 8)]), tmp_path, [])
