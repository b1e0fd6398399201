"""Networks that nobody named: built, with a bundle that checks itself, or refused in one true line."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import edgekit, refusal
from networks import noise
from onnx import TensorProto, helper, numpy_helper, parser

VOICE = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0]) / "data"

RECURRENT = """
import torch
from torch import nn

class Voice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.GRU(20, 32, batch_first=True, bidirectional=True), nn.Linear(64, 2)
    def forward(self, x):
        return {"speech": self.head(self.rnn(x)[0]).softmax(-1)}

def model():
    return Voice().eval()
def example_inputs():
    return torch.randn(1, 9, 20)
def calibration_data():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 5 + index, 20, generator=generator) for index in range(6)]
dynamic_axes = {"x": {0: "batch", 1: "time"}}
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def built(folder, cache, *arguments, expect=0):
    """What a build says as JSON, and its manifest, after the bundle has checked itself."""
    options = ["--runtime", "onnxruntime", "-o", "bundle", "--json"]
    done = edgekit("build", *arguments, *options, cwd=folder, expect=expect, EDGEKIT_CACHE=cache)
    checked = subprocess.run(
        [sys.executable, "-I", "run.py", "--check"],
        cwd=folder / "bundle", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return json.loads(done.stdout), json.loads((folder / "bundle" / "manifest.json").read_text())


def shapes(values):
    return {value["name"]: value["shape"] for value in values}


def test_a_recurrent_network_keeps_its_time_axis_through_to_the_manifest(cache, tmp_path):
    (tmp_path / "task.py").write_text(RECURRENT)
    _, manifest = built(tmp_path, cache, "task.py", "-t", "rpi4")
    assert shapes(manifest["inputs"]) == {"x": ["batch", "time", 20]}
    assert shapes(manifest["outputs"]) == {"speech": ["batch", "time", 2]}


def test_a_voice_detector_with_its_weights_in_branches_is_costed_for_the_branch_it_takes(cache, tmp_path):
    frames, states = noise(6, 1, 576) * np.float32(0.1), noise(6, 2, 1, 128)
    np.savez(tmp_path / "calls.npz", input=frames, state=states, sr=np.full(6, 16000))
    source = VOICE / "silero_vad.onnx"
    result, manifest = built(tmp_path, cache, source, "-t", "jetson-nano", "--calibration", "calls.npz")
    cost = result["tried"][0]["cost"]
    assert cost["latency_p50_ms"]["value"] > 1, "205 nodes and 0.7 M multiply-accumulates are in the branch"
    assert cost["size_mb"]["value"] < 1.02 * source.stat().st_size / 1e6
    assert manifest["inputs"][2]["shape"] == []
    seen = json.loads(edgekit("inspect", "bundle", "--json", cwd=tmp_path).stdout)
    assert "545282" in json.dumps(seen)


def test_a_loop_is_built_but_its_latency_is_said_to_be_unknown(cache, tmp_path):
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,16] x) => (float[1,16] y) {'
        " n = Constant<value = int64 {200}>() t = Constant<value = bool {1}>()"
        " y = Loop (n, t, x) < body = b (int64 i, bool c, float[1,16] s) => (bool d, float[1,16] e) {"
        " d = Identity(c) m = MatMul(s, w) e = Tanh(m) } > }"
    )
    body = next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g
    body.initializer.append(numpy_helper.from_array(noise(16, 16), "w"))
    onnx.save(model, tmp_path / "loop.onnx")
    result, _ = built(tmp_path, cache, "loop.onnx", "-t", "rpi4", expect=3)
    assert result["outcome"] == "UNPROVEN"
    assert "latency_p50_ms" not in result["tried"][0]["cost"]


def classifier(path, *, opset, ir_version, kind=np.float32, width=16):
    """A small convolutional classifier with every weight in a Constant node."""
    weights = {"w": noise(width, 3, 3, 3), "v": noise(width, 8)}
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array.astype(kind)))
        for name, array in weights.items()
    ]
    nodes += [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "v"], ["y"]),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    ends = [helper.make_tensor_value_info("x", element, ["N", 3, 16, 16]),
            helper.make_tensor_value_info("y", element, ["N", 99])]  # fmt: skip
    sets = [helper.make_opsetid("", opset)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=ir_version), path)


@pytest.mark.parametrize(("opset", "ir_version"), [(9, 4), (28, 14)])
def test_the_oldest_and_the_newest_files_run_on_an_older_runtime(cache, tmp_path, opset, ir_version):
    classifier(tmp_path / "net.onnx", opset=opset, ir_version=ir_version)
    result, manifest = built(tmp_path, cache, "net.onnx", "-t", "jetson-nano")
    model = onnx.load(tmp_path / "bundle" / "model.onnx")
    assert model.opset_import[0].version <= 21
    assert model.ir_version <= 10
    assert shapes(manifest["outputs"]) == {"y": ["N", 8]}, "the file's own declaration is wrong"
    assert result["outcome"] == "PREDICTED", "the network itself loses nothing, with or without data"


def test_a_float16_file_is_not_called_float32(cache, tmp_path):
    classifier(tmp_path / "net.onnx", opset=17, ir_version=8, kind=np.float16)
    result, _ = built(tmp_path, cache, "net.onnx", "-t", "rpi4")
    assert [tried["name"] for tried in result["tried"]] == ["float16"]


def test_int8_is_chosen_by_the_limit_that_float_misses(cache, tmp_path):
    classifier(tmp_path / "net.onnx", opset=17, ir_version=8, width=256)
    np.savez(tmp_path / "calls.npz", x=noise(16, 3, 16, 16))
    arguments = ["net.onnx", "-t", "rpi4", "--calibration", "calls.npz", "--size", "25KB"]
    result, _ = built(tmp_path, cache, *arguments)
    shipped = result["tried"][result["shipped"]]
    assert shipped["name"] == "int8"
    assert shipped["cost"]["size_mb"]["value"] <= 0.025
    used = onnx.load(tmp_path / "bundle" / "model.onnx").opset_import
    assert {entry.domain for entry in used} <= {"", "com.microsoft"}


def test_an_operator_that_nobody_knows_is_refused_without_advice_about_data(cache, tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    node = helper.make_node("Mine", ["x"], ["y"], domain="my.own")
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    graph = helper.make_graph([node], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), tmp_path / "net.onnx")
    line = refusal("build", "net.onnx", "-t", "rpi4", cwd=tmp_path, EDGEKIT_CACHE=cache)
    assert "my.own:Mine(-1) is not a registered function/op" in line
    assert "calibration" not in line
