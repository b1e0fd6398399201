import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import Recurrent, TinyCnn, calls_of, noise
from steps import converted_of
from torch import nn

from edgekit.artifact import EXTRAS, RUNTIMES, missing, read_artifact
from edgekit.errors import BadInput, OutsideFailure
from edgekit.runtimes.convert import installed
from edgekit.signal import snr_db
from edgekit.verify import run_torch

IMAGE = [noise(1, 1, 16, 16)]


@pytest.fixture(scope="module", params=["onnxruntime", "openvino", "torch"])
def made(request, tmp_path_factory):
    """A task, and its network as one runtime's artifact."""
    task, converted = converted_of(TinyCnn(), IMAGE, request.param, tmp_path_factory.mktemp("made"))
    return task, converted.artifact


def copied(artifact, folder):
    folder.mkdir()
    copy = artifact.copied_to(folder)
    copy.write_record()
    return copy


@pytest.mark.parametrize("reference", [False, True])
def test_it_computes_what_the_network_computes_on_calls_by_input_name(made, reference):
    task, artifact = made
    run = artifact.open(reference=reference)
    calls = calls_of(task, 4)
    outputs = [run(call) for call in calls]
    assert all(type(array) is np.ndarray for call in outputs for array in call)
    assert snr_db([one[0] for one in run_torch(task.model, calls)], [one[0] for one in outputs]) > 90


def test_a_copy_with_its_record_is_read_back_and_is_the_same(made, tmp_path):
    task, artifact = made
    found = read_artifact(copied(artifact, tmp_path / "copy").path.parent)
    assert found == replace(artifact, path=tmp_path / "copy" / artifact.path.name)
    assert found.digest() == artifact.digest()
    assert found.size_bytes == artifact.size_bytes == sum(path.stat().st_size for path in found.files)
    (before,), (after,) = (one.open()(calls_of(task, 1)[0]) for one in (artifact, found))
    assert np.array_equal(before, after)


def test_a_file_beside_the_main_one_counts_and_is_copied(tmp_path):
    _, converted = converted_of(TinyCnn(), IMAGE, "openvino", tmp_path)
    artifact = converted.artifact
    assert artifact.beside == ("model.bin",)
    copy = copied(artifact, tmp_path / "copy")
    with (tmp_path / "copy" / "model.bin").open("r+b") as file:
        file.write(b"\xff")
    assert copy.digest() != artifact.digest()


def test_the_digest_tells_options_apart_and_does_not_mind_their_order(made):
    _, artifact = made
    first, second, other = ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3})
    digests = [replace(artifact, options=options).digest() for options in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]


def test_the_record_is_plain_json(made, tmp_path):
    data = json.loads((copied(made[1], tmp_path / "copy").path.parent / "artifact.json").read_text())
    assert set(data) == {"runtime", "file", "beside", "inputs", "outputs", "options"}
    assert data["inputs"] == ["x"]


def test_equal_networks_give_equal_bytes(made, tmp_path):
    task, artifact = made
    again = converted_of(task.model, IMAGE, artifact.runtime, tmp_path)[1].artifact
    assert [path.read_bytes() for path in again.files] == [path.read_bytes() for path in artifact.files]
    assert again.digest() == artifact.digest()


def test_a_damaged_file_is_refused_in_one_line(made, tmp_path):
    copy = copied(made[1], tmp_path / "copy")
    copy.path.write_bytes(b"\x00no model" * 9)
    with pytest.raises(BadInput) as refusal:
        copy.open()
    assert str(refusal.value).startswith(f"{copy.path.name}: {copy.runtime} refuses it: ")
    assert len(str(refusal.value).splitlines()) == 1


def test_inputs_that_do_not_fit_are_refused_in_one_line(made):
    with pytest.raises(BadInput) as refusal:
        made[1].open()({"x": noise(1, 3, 7, 5)})
    assert str(refusal.value).startswith(f"the model, at these inputs: {made[1].runtime} fails: ")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_outputs_come_in_the_order_of_the_task_with_a_free_axis(runtime, tmp_path):
    dynamic = {"x": {1: "time"}}
    task, converted = converted_of(
        Recurrent(nn.GRU), [noise(1, 9, 16)], runtime, tmp_path, dynamic=dynamic, outputs=["speech", "state"]
    )
    assert converted.artifact.outputs == ("speech", "state")
    call = {"x": noise(1, 31, 16)}
    found, expected = converted.artifact.open()(call), run_torch(task.model, [call])[0]
    assert [array.shape for array in found] == [(1, 31, 2), (1, 1, 32)]
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def test_the_network_behind_it_is_there_for_the_ways_that_start_from_torch(tmp_path):
    task, converted = converted_of(TinyCnn(), IMAGE, "onnxruntime", tmp_path)
    assert converted.network() is task.model
    _, from_file = converted_of(onnx.load(converted.graph), IMAGE, "onnxruntime", tmp_path)
    assert from_file.network is None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_installs_a_missing_runtime_is_said(runtime):
    line = str(missing(runtime, ImportError("No module named 'x'")))
    package = f"edgekit[{EXTRAS[runtime]}]" if runtime in EXTRAS else "edgekit"
    assert line == f"{runtime} is not installed here: No module named 'x'; pip install '{package}'"


def test_a_runtime_whose_package_is_not_there_is_told_apart_from_a_file_it_refuses(tmp_path, monkeypatch):
    _, converted = converted_of(TinyCnn(), IMAGE, "openvino", tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)  # Python's own way to say: there is no such module
    with pytest.raises(OutsideFailure, match=r"^openvino is not installed here: .*; pip install 'edgekit'$"):
        converted.artifact.open()
    assert isinstance(installed("openvino"), OutsideFailure)
    assert installed("onnxruntime") is None
