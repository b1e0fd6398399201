"""Quantization for torch itself, by torchao."""

import subprocess
import sys

import numpy as np
import pytest
from networks import UNet, noise
from steps import context_of, converted_of, fresh
from torch import nn

from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.torch_ways import WAYS
from edgekit.errors import BadInput
from edgekit.signal import snr_db

NAMED = {way.name: way for way in WAYS}
# What a device with torch alone does; torchao is made impossible to import.
ALONE = """
import sys
sys.modules["torchao"] = None
import numpy, torch
network = torch.export.load(sys.argv[1]).module()
with torch.no_grad():
    numpy.save(sys.argv[3], network(torch.from_numpy(numpy.load(sys.argv[2])))[0].numpy())
"""


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    network = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 8))
    calls = [[noise(1, 256, seed=seed)] for seed in range(4)]
    task, converted = converted_of(
        network, calls[0], "torch", folder, calls=calls, dynamic={"x": {0: "batch"}}
    )
    return task, converted, context_of(task, converted.graph, folder)


def made(name, converted, task, context):
    return NAMED[name].make(converted, Settings(), task, context, fresh(context.folder))


@pytest.mark.parametrize(("name", "left"), [("torchao-int8-weight-only", 3), ("torchao-int8-dynamic", 0)])
def test_int8_runs_in_a_fresh_process_with_torch_alone(dense, name, left, tmp_path):
    task, converted, context = dense
    artifact = made(name, converted, task, context)
    call = {"x": noise(5, 256)}
    here = artifact.open()(call)[0]
    np.save(tmp_path / "in.npy", call["x"])
    command = [sys.executable, "-c", ALONE, artifact.path, tmp_path / "in.npy", tmp_path / "out.npy"]
    subprocess.run([str(word) for word in command], check=True, timeout=120)
    # Not bit for bit: torch adds in another order where memory is aligned otherwise.
    assert snr_db([here], [np.load(tmp_path / "out.npy")]) > 100
    assert snr_db(converted.artifact.open()(call), [here]) > 30
    assert artifact.size_bytes < converted.artifact.size_bytes / 1.8
    assert NAMED[name].left_in_float(artifact) == left


def test_the_same_network_gives_the_same_bytes_and_is_left_as_it_was(dense):
    task, converted, context = dense
    digests = {made("torchao-int8-weight-only", converted, task, context).digest() for _ in range(2)}
    assert len(digests) == 1
    assert type(converted.network()[0].weight) is nn.Parameter


def test_a_network_without_dense_layers_is_refused(tmp_path):
    task, converted = converted_of(UNet(), [noise(1, 3, 16, 16)], "torch", tmp_path)
    with pytest.raises(BadInput, match="no dense layer"):
        made("torchao-int8-dynamic", converted, task, context_of(task, None, tmp_path))


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("torchao-int8-weight-only", {}, ""),
        ("torchao-int8-dynamic", {}, ""),
        ("torchao-int8-dynamic", {"weights": "int4"}, "not int4"),
        ("torchao-int8-dynamic", {"activations": "int16"}, "int16"),
        ("torchao-int8-dynamic", {"revert": True}, "put back to float"),
        ("torchao-int4-weight-only", {"weights": "int4"}, "on GPUs only"),
        ("torchao-autoquant", {}, "has it no more"),
    ],
)
def test_settings_that_torchao_has_not_are_refused(dense, name, settings, why):
    _, converted, context = dense
    reason = NAMED[name].why_not(converted, Settings(**settings), context)
    assert why in reason
    assert bool(reason) == bool(why)


def test_torchao_still_lacks_what_is_refused_here():
    import torchao.quantization as torchao

    assert not hasattr(torchao, "autoquant")
    with pytest.raises(ImportError, match="mslk"):
        torchao.quantize_(nn.Sequential(nn.Linear(64, 64)), torchao.Int4WeightOnlyConfig(group_size=32))
