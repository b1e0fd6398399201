import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import (
    FLOAT,
    INT64,
    as_tensorrt,
    contents_of,
    files_of,
    image_calls,
    image_network,
    model_of,
    packed,
    value,
    voice_calls,
    voice_network,
    weights,
)
from onnx import TensorProto, helper

import edgekit
from edgekit.bundle.archive import unpack, write_archive
from edgekit.bundle.check import check_files
from edgekit.bundle.golden import CEILING_DB, LEAST_DB
from edgekit.bundle.manifest import read_manifest
from edgekit.bundle.pack import write_bundle
from edgekit.cost import OUTCOMES, Cost, Figure
from edgekit.devices.wheels import installer_for, wheels_for
from edgekit.errors import BadInput, EdgekitError, VerificationFailed
from edgekit.graph.run import open_session, run
from edgekit.result import Quality
from edgekit.target import load_target


def test_a_bundle_holds_these_files_and_its_manifest_lists_all_but_itself(bundle):
    parts = {f"runner/{path.name}" for path in (Path(edgekit.__path__[0]) / "ondevice/runner").glob("*.py")}
    expected = {"README.md", "golden.npz", "model.onnx", "requirements.txt", "run.py", *parts}
    other = ("openvino", "tflite", "executorch", "torch", "tensorrt")
    expected -= {f"runner/session_{name}.py" for name in other}
    expected -= {"runner/__init__.py", "runner/engine.py", "runner/cudart.py"}
    assert set(files_of(bundle)) == expected | {"manifest.json"}
    assert set(read_manifest(bundle).files) == expected


def test_the_same_contents_give_the_same_bytes(tmp_path):
    reversed_calls = [dict(reversed(call.items())) for call in voice_calls()]
    first = packed(tmp_path / "a" / "one", voice_network(), voice_calls())
    second = packed(tmp_path / "b" / "another", voice_network(), reversed_calls)
    assert files_of(first) == files_of(second)


def test_a_bundle_tells_nothing_of_the_machine_it_was_made_on(tmp_path):
    everything = b"".join(files_of(packed(tmp_path / "tiny")).values())
    for secret in (str(tmp_path), str(Path(edgekit.__path__[0]).parent), platform.node()):
        assert secret.encode() not in everything


def test_the_requirements_are_the_pins_of_the_target(bundle):
    lines = (bundle / "requirements.txt").read_text().splitlines()
    pins = contents_of().target.requirements_for("onnxruntime")
    assert lines[1:] == [f"{name}=={version}" for name, version in sorted(pins.items())]
    assert read_manifest(bundle).requirements == pins


def test_ranges_are_those_of_all_calls_of_the_inputs_and_of_the_golden_samples_of_the_outputs(bundle):
    calls = image_calls()
    manifest = read_manifest(bundle)
    assert manifest.inputs[0].range == (
        min(float(call["image"].min()) for call in calls),
        max(float(call["image"].max()) for call in calls),
    )
    golden = np.load(bundle / "golden.npz")
    outputs = [golden[f"s{s}_o0"] for s in range(manifest.golden.samples)]
    assert manifest.outputs[0].range == (float(np.min(outputs)), float(np.max(outputs)))


def test_the_golden_outputs_are_what_the_artifact_itself_gives_here(voice_bundle):
    golden, session = (
        np.load(voice_bundle / "golden.npz"),
        open_session((voice_bundle / "model.onnx").read_bytes()),
    )
    for number in range(3):
        call = {name: golden[f"s{number}_i{i}"] for i, name in enumerate(("sound", "state", "rate"))}
        for place, array in enumerate(run(session, call)):
            np.testing.assert_array_equal(array, golden[f"s{number}_o{place}"])


def test_inputs_and_outputs_keep_their_order_dtypes_free_axes_and_scalars(voice_bundle):
    manifest = read_manifest(voice_bundle)
    assert [
        (tensor.name, tensor.dtype, tensor.shape) for tensor in (*manifest.inputs, *manifest.outputs)
    ] == [
        ("sound", "float32", ["steps", 8]),
        ("state", "float32", [1, 4]),
        ("rate", "int64", []),
        ("speech", "float32", [1, 1]),
        ("new_state", "float32", [1, 4]),
        ("loudest", "int64", [1, 1]),
    ]
    assert manifest.inputs[2].range == (16000.0, 16000.0)


def test_free_axes_that_share_a_name_and_not_a_size_get_names_of_their_own(tmp_path):
    model = model_of(
        [helper.make_node("Concat", ["a", "b"], ["c"], axis=0)],
        [value("a", FLOAT, ["N", "width"]), value("b", FLOAT, ["N", "width"])],
        [value("c", FLOAT, ["M", "width"])],
    )
    calls = [{"a": np.zeros((n, 3), np.float32), "b": np.ones((n + 1, 3), np.float32)} for n in (1, 4)]
    manifest = read_manifest(packed(tmp_path / "x", model, calls))
    assert [tensor.shape for tensor in manifest.inputs] == [["a_0", "width"], ["b_0", "width"]]


def test_axes_without_a_name_get_one_each_and_a_missing_shape_becomes_free_axes(tmp_path):
    model = model_of(
        [helper.make_node("Identity", ["a"], ["b"])],
        [value("a", FLOAT, [None, None])],
        [helper.make_tensor_value_info("b", FLOAT, None)],
    )
    manifest = read_manifest(packed(tmp_path / "x", model, [{"a": np.ones((2, 3), np.float32)}]))
    assert manifest.inputs[0].shape == ["a_0", "a_1"]
    assert manifest.outputs[0].shape == ["b_0", "b_1"]


def test_a_wrong_declaration_of_an_output_is_replaced_by_what_comes_out(tmp_path):
    model = image_network()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    assert read_manifest(packed(tmp_path / "x", model)).outputs[0].shape == ["batch", 10]


@pytest.mark.parametrize(
    ("nodes", "inputs", "outputs", "word"),
    [
        (
            [helper.make_node("SequenceConstruct", ["a"], ["s"])],
            [value("a", FLOAT, [1])],
            [helper.make_tensor_sequence_value_info("s", FLOAT, None)],
            "sequence",
        ),
        (
            [helper.make_node("Identity", ["a"], ["s"])],
            [value("a", TensorProto.STRING, [1])],
            [value("s", TensorProto.STRING, [1])],
            "string",
        ),
    ],
)
def test_what_is_no_tensor_of_numbers_is_refused_by_its_name(tmp_path, nodes, inputs, outputs, word):
    text = inputs[0].type.tensor_type.elem_type == TensorProto.STRING
    call = {"a": np.asarray(["x"], object) if text else np.ones(1, np.float32)}
    with pytest.raises(BadInput, match=word):
        packed(tmp_path / "x", model_of(nodes, inputs, outputs), [call])


def test_a_call_that_lacks_an_input_is_refused_by_the_inputs_name(tmp_path):
    with pytest.raises(BadInput, match="state"):
        packed(tmp_path / "x", voice_network(), [{"sound": np.ones((2, 8), np.float32)}])


def test_an_artifact_that_gives_nan_is_not_packed(tmp_path):
    model = model_of(
        [helper.make_node("Log", ["a"], ["b"])], [value("a", FLOAT, [1])], [value("b", FLOAT, [1])]
    )
    with pytest.raises(VerificationFailed, match="`b` of golden sample 0 holds NaN"):
        packed(tmp_path / "x", model, [{"a": np.asarray([-1.0], np.float32)}])


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\x1b[31m", "x" * 101])
def test_a_name_that_is_no_name_of_a_folder_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match="name"):
        packed(tmp_path / "x", name=name)


def test_a_float_network_must_come_out_to_the_ceiling_and_an_int8_one_to_less(tmp_path):
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.calls = iter(image_calls())

        def get_next(self):
            return next(self.calls, None)

    floating = packed(tmp_path / "float")
    quantization.quantize_static(floating / "model.onnx", tmp_path / "int8.onnx", Reader(), per_channel=True)
    integer = packed(tmp_path / "int8", onnx.load(tmp_path / "int8.onnx"))
    assert read_manifest(floating).golden.min_snr_db == CEILING_DB
    assert LEAST_DB <= read_manifest(integer).golden.min_snr_db <= CEILING_DB


def test_the_readme_says_how_each_figure_was_got_and_how_it_stands(tmp_path):
    cost = Cost(
        latency_p90_ms=Figure(value=12.0, how="predicted", source="cost model of rpi4", low=8.0, high=20.0),
        size_mb=Figure(value=99.0, how="measured", source="bytes on disk"),
    )
    here = Cost(peak_memory_mb=Figure(value=61.5, how="measured", source="this machine"))
    quality = Quality(kind="top-1 agreement", score=0.985, drop=0.015, samples=200)
    text = (packed(tmp_path / "x", cost=cost, here=here, quality=quality) / "README.md").read_text()
    for words in (
        "predicted: cost model of rpi4",
        "12 ms (8 ms to 20 ms)",
        f"Budget: **NOT MET**: {OUTCOMES['NOT MET']}.",
        "the interval of a latency holds 9 cases in 10",
        "measured: bytes on disk",
        "neither measured nor predicted",
        "61.5 MB",
        "fidelity to the original network (top-1 agreement) 0.985 on 200 samples",
        "python run.py --check",
        "pip install -r requirements.txt",
        "batch x 3 x 16 x 16",
    ):
        assert words in text


def test_the_readmes_commands_are_right_for_a_name_with_blanks(tmp_path):
    text = (packed(tmp_path / "x", name="my bundle; rm") / "README.md").read_text()
    assert "python3 -m venv '../my bundle; rm-venv'\n" in text
    assert ". '../my bundle; rm-venv'/bin/activate\n" in text


def test_the_readme_of_a_bundle_for_tensorrt_lets_the_boards_own_be_found_and_says_what_was_not_tried(
    tmp_path,
):
    text = (packed(tmp_path / "x", **as_tensorrt()) / "README.md").read_text()
    assert "python3 -m venv --system-site-packages ../tiny-venv\n" in text
    assert "TensorRT is not yet run on hardware by edgekit." in text
    plain = (packed(tmp_path / "y") / "README.md").read_text()
    assert "--system-site-packages" not in plain
    assert "TensorRT" not in plain


def test_the_readme_shows_every_input_of_a_network_with_several(voice_bundle):
    text = (voice_bundle / "README.md").read_text()
    assert "--input input1.npy --input input2.npy --input input3.npy" in text
    assert "`rate`" in text
    assert "scalar" in text


def test_a_folder_that_cannot_be_written_is_one_line():
    with pytest.raises(EdgekitError, match="cannot be written"):
        write_bundle(Path("/proc/edgekit"), contents_of())


def test_integer_inputs_are_described_too(tmp_path):
    model = model_of(
        [helper.make_node("Gather", ["w1", "word"], ["vector"])],
        [value("word", INT64, ["length"])],
        [value("vector", FLOAT, ["length", 4])],
        weights(w1=(9, 4)),
    )
    manifest = read_manifest(packed(tmp_path / "x", model, [{"word": np.asarray([1, 8, 3])}]))
    assert manifest.inputs[0].range == (1.0, 8.0)


@pytest.fixture(scope="module")
def offline_bundle(tmp_path_factory):
    """A bundle for this machine with its packages in it."""
    target, version = load_target("x86-cpu"), platform.python_version()
    pins = target.requirements_for("onnxruntime")
    wheels = wheels_for(pins, arch="x86_64", python=version, glibc=target.glibc)
    installer = installer_for(version)
    folder = tmp_path_factory.mktemp("offline") / "tiny"
    return packed(folder, target=target, wheels={**wheels, installer.name: installer})


def test_wheels_are_listed_with_their_digests_and_checked(offline_bundle, tmp_path):
    manifest = read_manifest(offline_bundle)
    names = sorted(path.name for path in (offline_bundle / "wheels").iterdir())
    assert sorted(f"wheels/{name}" for name in names) == [
        name for name in manifest.files if "wheels/" in name
    ]
    check_files(offline_bundle, manifest)
    damaged = shutil.copytree(offline_bundle, tmp_path / "tiny")
    with (damaged / "wheels" / names[0]).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(VerificationFailed, match=f"wheels/{names[0]}"):
        check_files(damaged, manifest)


def test_an_archive_carries_the_wheels(offline_bundle, tmp_path):
    write_archive(offline_bundle, tmp_path / "tiny.tar.gz")
    assert files_of(unpack(tmp_path / "tiny.tar.gz", tmp_path)) == files_of(offline_bundle)


def test_what_the_readme_says_installs_without_a_network_and_the_bundle_runs(offline_bundle, tmp_path):
    bundle = shutil.copytree(offline_bundle, tmp_path / "tiny")
    lines = (bundle / "README.md").read_text().splitlines()
    start = lines.index("## Install")
    commands = [line.strip() for line in lines[start : lines.index("## Use")] if line.startswith("    ")]
    assert len(commands) == 3
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    path = f"{Path(sys.executable).parent}:{alone['PATH']}"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-e", "-c", "\n".join([*commands, "python run.py --check"])],
        cwd=bundle,
        env={**alone, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
