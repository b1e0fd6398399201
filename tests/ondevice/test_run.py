"""A bundle far from where it was made, in an environment that holds nothing but its requirements."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from bundles import image_calls, image_network, packed, voice_calls
from onnx import numpy_helper


def run(python, bundle, *options, cwd=None, **environment):
    command = [python, bundle / "run.py", *options]
    environment = {**{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}, **environment}
    return subprocess.run(
        command, cwd=cwd or bundle, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def python_says(python, program, cwd):
    return subprocess.run(
        [python, "-c", program], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def sign_again(bundle):
    """Make the manifest true of the files as they are now."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in manifest["files"]:
        content = (bundle / name).read_bytes()
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_clean_environment_holds_the_requirements_only(device_python):
    listed = subprocess.run(
        [device_python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    )
    names = {entry["name"].lower() for entry in json.loads(listed.stdout)}
    assert {"numpy", "onnxruntime"} <= names
    assert not {"onnx", "torch", "edgekit", "pydantic", "click"} & names


def test_check_passes(device_python, bundle):
    done = run(device_python, bundle, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    files = len(json.loads((bundle / "manifest.json").read_text())["files"])
    passed = f"check passed: {files} files have their digests, 8 golden samples agree exactly"
    assert done.stdout.startswith(passed)


def test_check_passes_from_another_folder_and_with_several_inputs_outputs_state_and_scalars(
    device_python, voice_bundle, tmp_path
):
    done = run(device_python, voice_bundle, "--check", "--json", cwd=tmp_path)
    files = len(json.loads((voice_bundle / "manifest.json").read_text())["files"])
    found = {"files": files, "samples": 3, "lowest_snr_db": None, "min_snr_db": 50.0}
    assert json.loads(done.stdout) == found


def test_a_quick_benchmark_gives_a_record_in_about_ten_seconds(device_python, bundle):
    done = run(device_python, bundle, "--bench", "--quick", "--threads", "1")
    assert done.returncode == 0
    record = json.loads(done.stdout)
    assert record["schema"] == "edgekit.bench/1"
    assert record["protocol"]["seconds"] + record["protocol"]["warm_up"]["seconds"] < 10
    assert record["latency"]["n"] == len(record["samples_ms"]) >= 64
    assert record["latency"]["p50_ms"] <= record["latency"]["p90_ms"]
    assert record["memory"]["peak_rss_mb"] > record["memory"]["before_load_rss_mb"] > 10
    assert record["first_call_ms"] > 0 < record["load_ms"]
    assert record["facts"]["packages"] == {"numpy": "2.4.6", "onnxruntime": "1.31.1"}
    assert "measuring:" in done.stderr
    assert record["contaminated"] == bool(record["warnings"])


def test_an_input_file_is_predicted(device_python, bundle, tmp_path):
    np.save(tmp_path / "x.npy", image_calls(1)[0]["image"])
    done = run(device_python, bundle, "--input", tmp_path / "x.npy")
    outputs = json.loads(done.stdout)["outputs"]
    golden = np.load(bundle / "golden.npz")["s0_o0"]
    np.testing.assert_allclose(outputs["logits"]["values"], golden, rtol=1e-6)


def test_several_inputs_come_from_several_files_or_from_one_by_name(device_python, voice_bundle, tmp_path):
    call = voice_calls()[1]
    for name, array in call.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.savez(tmp_path / "all.npz", **dict(reversed(call.items())))
    files = [option for name in call for option in ("--input", tmp_path / f"{name}.npy")]
    one, many = (
        run(device_python, voice_bundle, "--input", tmp_path / "all.npz"),
        run(device_python, voice_bundle, *files),
    )
    assert json.loads(one.stdout)["outputs"] == json.loads(many.stdout)["outputs"]
    assert json.loads(one.stdout)["outputs"]["loudest"]["dtype"] == "int64"


def test_a_free_axis_takes_any_size(device_python, bundle, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 3, 16, 16), np.float32))
    done = run(device_python, bundle, "--input", tmp_path / "x.npy")
    assert json.loads(done.stdout)["outputs"]["logits"]["shape"] == [5, 10]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 3, 16, 15), np.float32), "must be [batch, 3, 16, 16]"),
        (np.zeros((1, 3, 16, 16)), "is float64, must be float32"),
        (np.full((1, 3, 16, 16), np.nan, np.float32), "768 NaN values"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_in_one_line(device_python, bundle, tmp_path, array, words):
    np.save(tmp_path / "x.npy", array)
    done = run(device_python, bundle, "--input", tmp_path / "x.npy")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_is_a_module_with_load_and_predict(device_python, voice_bundle):
    program = (
        "import run, numpy as np; model = run.load();"
        "call = [np.ones((4, 8), 'f4'), np.zeros((1, 4), 'f4'), np.asarray(16000)];"
        "speech, state, loudest = model.predict(*call); assert run.predict(*call)[0] == speech;"
        "print(model.threads, [spec['name'] for spec in model.inputs], speech.shape, loudest.dtype)"
    )
    done = python_says(device_python, program, voice_bundle)
    assert done.stdout == "1 ['sound', 'state', 'rate'] (1, 1) int64\n"


def test_two_bundles_live_in_one_process(device_python, bundle, voice_bundle, tmp_path):
    program = (
        "import importlib.util\n"
        "def module(path):\n"
        "    spec = importlib.util.spec_from_file_location('bundle', path + '/run.py')\n"
        "    found = importlib.util.module_from_spec(spec); spec.loader.exec_module(found); return found\n"
        f"first, second = module({str(bundle)!r}), module({str(voice_bundle)!r})\n"
        "print(first.load().manifest['name'], second.load().manifest['name'])\n"
        "print(first.part('inputs').WrongInput is second.part('inputs').WrongInput)\n"
    )
    assert python_says(device_python, program, tmp_path).stdout == "tiny voice\nFalse\n"


@pytest.mark.parametrize("options", [["--check"], ["--bench", "--quick"], ["--input", "golden.npz"]])
def test_a_missing_runtime_is_one_line_with_the_command_that_mends_it(bare_python, bundle, options):
    done = run(bare_python, bundle, *options)
    assert done.returncode == 4
    assert "No module named" in done.stderr
    assert f"-m pip install -r {bundle / 'requirements.txt'}" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("run.py:")]) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "README.md", "runner/facts.py"])
def test_a_changed_file_fails_the_check_and_is_named(device_python, bundle, name):
    with (bundle / name).open("ab") as file:
        file.write(b"\n")
    for options in (["--check"], ["--bench", "--quick"]):
        done = run(device_python, bundle, *options)
        assert done.returncode == 5
        assert f"check failed: {name} has" in done.stderr


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "runner/check.py", "runner/commands.py"])
def test_a_missing_file_fails_the_check_and_is_named(device_python, bundle, name):
    (bundle / name).unlink()
    done = run(device_python, bundle, "--check")
    assert done.returncode == 5
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_a_part_that_is_no_program_any_more_fails_the_check_and_is_named(device_python, bundle):
    (bundle / "runner" / "commands.py").write_bytes(b"\0 def")
    done = run(device_python, bundle, "--check")
    assert done.returncode == 5
    assert "commands.py is damaged; copy the bundle again" in done.stderr


def test_golden_outputs_that_are_nan_fail_the_check(device_python, bundle):
    arrays = dict(np.load(bundle / "golden.npz"))
    arrays["s3_o0"] = arrays["s3_o0"] * np.nan
    np.savez(bundle / "golden.npz", **arrays)
    sign_again(bundle)
    done = run(device_python, bundle, "--check")
    assert done.returncode == 5
    assert "golden sample 3: output `logits` is NaN or infinite in the golden sample itself" in done.stderr


def test_another_networks_weights_fail_the_check(device_python, bundle, tmp_path):
    other = image_network()
    weight = other.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    other_bundle = packed(tmp_path / "other", other, [{"image": np.zeros((1, 3, 16, 16), np.float32)}])
    shutil.copy(other_bundle / "model.onnx", bundle / "model.onnx")
    sign_again(bundle)
    done = run(device_python, bundle, "--check")
    assert done.returncode == 5
    assert "golden sample 0: output `logits`" in done.stderr


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": "edgekit.bundle/2"}'])
def test_a_manifest_that_is_none_fails_the_check(device_python, bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    done = run(device_python, bundle, "--check")
    assert done.returncode == 5
    assert "manifest.json" in done.stderr


def test_a_folder_without_a_manifest_is_no_bundle(device_python, bundle):
    (bundle / "manifest.json").unlink()
    done = run(device_python, bundle, "--check")
    assert done.returncode == 2
    assert "is this an edgekit bundle?" in done.stderr


def test_a_model_that_the_runtime_refuses_is_one_line(device_python, bundle):
    (bundle / "model.onnx").write_bytes(b"no model")
    sign_again(bundle)
    done = run(device_python, bundle, "--check")
    assert done.returncode == 4
    assert "the runtime refuses the model" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_more_threads_than_cores_are_refused(device_python, bundle):
    done = run(device_python, bundle, "--check", "--threads", "1000")
    assert done.returncode == 2
    assert "1000 threads asked for" in done.stderr


def test_a_bundle_made_for_more_cores_runs_on_fewer(device_python, tmp_path):
    bundle = packed(tmp_path / "many", threads=64)
    record = json.loads(run(device_python, bundle, "--bench", "--quick").stdout)
    used = record["protocol"]["threads"]
    assert used == len(os.sched_getaffinity(0))
    assert f"threads: the bundle asks for 64, measured with {used}" in record["notes"]


def test_a_runtime_built_for_another_cpu_is_one_line_instead_of_a_crash(device_python, bundle, tmp_path):
    crashing = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    (tmp_path / "onnxruntime.py").write_text(crashing)
    done = run(device_python, bundle, "--check", PYTHONPATH=str(tmp_path))
    assert done.returncode == 4
    assert "crashed with SIGILL: this build needs instructions that this CPU lacks" in done.stderr


def test_running_a_bundle_writes_nothing_into_it(device_python, bundle):
    before = sorted(bundle.rglob("*"))
    run(device_python, bundle, "--check")
    run(device_python, bundle, "--bench", "--quick")
    assert sorted(bundle.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--check", "--quick"], "--quick and --strict are options of --bench"),
        (["--input", "x.npy", "--strict"], "--quick and --strict are options of --bench"),
        (["--bench", "--json"], "--json is an option of --check"),
        (["--bench", "--check"], "not allowed with"),
        (["--check", "--threads", "0"], "0 is not between 1 and 1024"),
    ],
)
def test_options_that_an_action_would_ignore_are_refused(device_python, bundle, options, words):
    done = run(device_python, bundle, *options)
    assert done.returncode == 2
    assert words in done.stderr


def test_without_an_action_it_shows_its_usage(device_python, bundle):
    done = run(device_python, bundle)
    assert done.returncode == 2
    assert "--check" in done.stderr
    shown = run(device_python, bundle, "--help").stdout
    assert "--memory" not in shown
    assert "--bench" in shown


def test_a_reader_that_has_gone_is_no_error_to_show(bundle):
    command = f"{sys.executable} {bundle / 'run.py'} --bench --quick | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
