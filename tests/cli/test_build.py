import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from command import SMALL, edgekit, environment, refusal
from sklearn.datasets import load_digits

from edgekit.compress.quantization.ways import ways_of

TARGETS = Path(__file__).parents[2] / "targets"
RPI4 = ("-t", "rpi4", "--runtime", "onnxruntime")  # tests of the choice of a runtime are in test_runtimes.py


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache for all builds here, so that each stage is made once."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def built(tmp_path_factory, cache):
    """A folder with a bundle in int8, made because float32 is too large, and what the build said."""
    folder = tmp_path_factory.mktemp("built")
    done = edgekit("build", SMALL, *RPI4, "--size", "35KB", "--archive", cwd=folder, EDGEKIT_CACHE=cache)
    return folder, done


@pytest.fixture(scope="session")
def onnx_file(built):
    """The float network as a file from elsewhere."""
    folder, _ = built
    edgekit("build", SMALL, *RPI4, "-o", folder / "float", cwd=folder, EDGEKIT_CACHE=folder / "cache")
    return folder / "float" / "model.onnx"


def test_a_build_says_how_it_came_out_and_where_everything_lies(built):
    folder, done = built
    assert "PREDICTED" in done.stdout
    assert "`int8` fits the budget" in done.stdout
    assert "bundle: dist/small-rpi4" in done.stdout
    assert "report: dist/small-rpi4.build.html" in done.stdout
    assert (folder / "dist" / "small-rpi4" / "manifest.json").is_file()
    assert (folder / "dist" / "small-rpi4.build.html").read_text().startswith("<!doctype html>")
    assert (folder / "dist" / "small-rpi4.tar.gz").is_file()
    assert "convert to ONNX" in done.stderr


def test_the_bundle_predicts_what_the_network_predicts(built):
    folder, _ = built
    bundle = folder / "dist" / "small-rpi4"
    np.save(folder / "x.npy", np.load(bundle / "golden.npz")["s0_i0"])
    done = subprocess.run(
        [sys.executable, bundle / "run.py", "--input", folder / "x.npy"],
        capture_output=True,
        check=True,
        cwd="/",
    )
    scores = json.loads(done.stdout)["outputs"]["output"]["values"][0]
    assert int(np.argmax(scores)) == 0  # the first of scikit-learn's digits is a zero


def test_a_second_build_takes_every_stage_from_the_cache_says_so_and_gives_the_same_bytes(
    built, cache, tmp_path
):
    folder, _ = built
    again = tmp_path / "again" / "small-rpi4"
    done = edgekit(
        "build",
        SMALL,
        *RPI4,
        "--size",
        "35KB",
        "--archive",
        "-o",
        again,
        cwd=tmp_path,
        EDGEKIT_CACHE=cache,
    )
    assert "from the cache" in done.stdout
    stages = [line for line in done.stderr.splitlines() if line.startswith("✓") and "load" not in line]
    assert len(stages) >= 4
    assert all("from the cache" in line for line in stages if "package" not in line)
    first = (folder / "dist" / "small-rpi4.tar.gz").read_bytes()
    assert again.with_name("small-rpi4.tar.gz").read_bytes() == first


def test_a_recipe_is_replayed_without_a_search(built, cache, tmp_path):
    recipe = {
        "steps": [{"step": "quantize", "route": "ort-static"}],
        "runtime": "onnxruntime",
        "threads": 2,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = edgekit(
        "build", SMALL, "-t", "rpi4", "--recipe", "recipe.yaml", "--json", cwd=tmp_path, EDGEKIT_CACHE=cache
    )
    result = json.loads(done.stdout)
    assert [tried["name"] for tried in result["tried"]] == ["int8"]
    assert result["tried"][0]["recipe"] == recipe
    manifest = json.loads((tmp_path / result["bundle"] / "manifest.json").read_text())
    assert manifest["recipe"] == recipe
    assert manifest["runtime"]["threads"] == 2


def test_pruning_with_distillation_gives_a_smaller_network_that_still_works(cache, tmp_path):
    recipe = {"steps": [{"step": "prune", "macs": 0.5, "round_to": 8}, {"step": "distill", "epochs": 4}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    options = ["--recipe", "recipe.yaml", "--json", "--max-drop", "5%"]
    done = edgekit("build", SMALL, *RPI4, *options, cwd=tmp_path, EDGEKIT_CACHE=cache)
    tried = json.loads(done.stdout)["tried"][0]
    assert tried["cost"]["drop"]["value"] < 0.05
    assert tried["cost"]["size_mb"]["value"] < 0.03  # float32 has 0.044
    session = onnxruntime.InferenceSession(tmp_path / "dist" / "small-rpi4" / "model.onnx")
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 1, 1, 8, 8).astype(np.float32) / 8 - 1
    right = [session.run(None, {"input": image})[0].argmax() for image in images[1400:]] == labels[1400:]
    assert tried["quality"]["score"] == pytest.approx(right.mean())
    assert tried["parities"][0]["snr_db"] > 60


def test_training_data_that_cannot_be_used_costs_the_pruned_networks_only_and_is_said(cache, tmp_path):
    batches = "return [{'image': image, 'label': label} for image, label in Batches()]"
    (tmp_path / "task.py").write_text(SMALL.read_text().replace("return Batches()", batches))
    options = ["--size", "12KB", "--json"]
    done = edgekit("build", "task.py", *RPI4, *options, cwd=tmp_path, expect=3, EDGEKIT_CACHE=cache)
    result = json.loads(done.stdout)
    assert result["tried"][result["shipped"]]["name"] == "int8"
    reasons = {tried["name"]: tried["reason"] for tried in result["tried"]}
    assert "cannot be trained on the training data: KeyError: 0" in reasons["pruned to 70% + int8"]


def test_verbose_shows_what_libraries_say_on_standard_error_and_usually_nothing_of_it_is_seen(tmp_path):
    options = ["--quantize", "static,route=nncf", "--json", "-v"]
    loud = edgekit("build", SMALL, *RPI4, *options, cwd=tmp_path, EDGEKIT_CACHE=tmp_path / "loud")
    assert json.loads(loud.stdout)["schema"] == "edgekit.build/1"
    assert "Statistics collection" in loud.stderr  # nncf
    assert "torchvision is not installed" in loud.stderr  # torch's exporter
    done = edgekit("build", SMALL, *RPI4, *options[:2], cwd=tmp_path, EDGEKIT_CACHE=tmp_path / "calm")
    assert all(line.startswith("✓ ") for line in done.stderr.splitlines())


def test_a_budget_that_cannot_be_met_is_status_3_and_says_what_to_relax(cache, tmp_path):
    done = edgekit("build", SMALL, *RPI4, "--size", "2KB", cwd=tmp_path, expect=3, EDGEKIT_CACHE=cache)
    assert "NOT MET" in done.stdout
    assert "To meet the budget" in done.stdout
    assert "met at a limit of" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: rpi4: the budget is NOT MET")


def test_strict_is_not_content_with_a_prediction(cache, tmp_path):
    line = refusal("build", SMALL, *RPI4, "--strict", cwd=tmp_path, expect=3, EDGEKIT_CACHE=cache)
    assert "PREDICTED" in line


def test_on_this_machine_as_the_target_every_limit_is_measured(cache, tmp_path):
    options = ["--latency", "p90:1s", "--memory", "2GB", "--strict", "--json"]
    done = edgekit(
        "build",
        SMALL,
        "-t",
        "x86-cpu",
        "--runtime",
        "onnxruntime",
        *options,
        cwd=tmp_path,
        EDGEKIT_CACHE=cache,
    )
    result = json.loads(done.stdout)
    assert result["outcome"] == "MET"
    cost = result["tried"][result["shipped"]]["cost"]
    assert {
        name: figure["how"] for name, figure in cost.items() if "latency" in name or "memory" in name
    } == {
        "latency_p50_ms": "measured",
        "latency_p90_ms": "measured",
        "latency_p99_ms": "measured",
        "peak_memory_mb": "measured",
    }


def test_an_onnx_file_is_built_with_calibration_from_a_file(onnx_file, cache, tmp_path):
    images = np.stack([np.load(onnx_file.parent / "golden.npz")[f"s{i}_i0"][0] for i in range(8)])
    np.savez(tmp_path / "data.npz", input=images)
    shutil.copy(onnx_file, tmp_path / "model.onnx")
    options = ["--calibration", "data.npz", "--size", "35KB", "--max-drop", "30%", "--json"]
    done = edgekit("build", "model.onnx", *RPI4, *options, cwd=tmp_path, EDGEKIT_CACHE=cache)
    result = json.loads(done.stdout)
    shipped = result["tried"][result["shipped"]]
    assert shipped["name"] == "int8"
    assert shipped["quality"]["kind"] == "top-1 agreement"
    assert any("pruning is not offered" in note for note in result["notes"])
    assert shipped["recipe"]["steps"][0]["route"] in {way.name for way in ways_of("onnxruntime")}


def test_a_file_that_is_quantized_already_is_left_alone_and_said_so(built, cache, tmp_path):
    folder, _ = built
    shutil.copy(folder / "dist" / "small-rpi4" / "model.onnx", tmp_path / "int8.onnx")
    done = edgekit("build", "int8.onnx", *RPI4, "--json", cwd=tmp_path, EDGEKIT_CACHE=cache)
    result = json.loads(done.stdout)
    assert [tried["name"] for tried in result["tried"]] == ["as given"]
    assert any("quantized already and is left alone" in note for note in result["notes"])


def test_without_any_data_the_unchanged_network_is_known_to_lose_nothing(cache, tmp_path):
    write_model(tmp_path)
    done = edgekit("build", "model.onnx", *RPI4, "--json", cwd=tmp_path, EDGEKIT_CACHE=cache)
    result = json.loads(done.stdout)
    drop = result["tried"][0]["cost"]["drop"]
    assert result["outcome"] == "PREDICTED"
    assert drop["value"] == 0
    assert "the network is unchanged" in drop["source"]
    assert result["tried"][0]["quality"]["kind"] == "none"


def test_a_plan_shows_the_candidates_and_writes_nothing(cache, tmp_path):
    done = edgekit("plan", SMALL, *RPI4, cwd=tmp_path, EDGEKIT_CACHE=cache)
    assert "nothing was built" in done.stdout
    assert "To meet the budget" not in done.stdout
    for name in ("float32", "int8", "pruned to 50% + int8"):
        assert name in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_plan_as_json_has_every_layer(cache, tmp_path):
    done = edgekit("plan", SMALL, *RPI4, "--json", cwd=tmp_path, EDGEKIT_CACHE=cache)
    plan = json.loads(done.stdout)
    assert plan["schema"] == "edgekit.plan/1"
    assert all(one["cost"]["latency_p90_ms"]["how"] == "predicted" for one in plan["candidates"])
    assert not any(one["realised"] for one in plan["candidates"])
    assert "outcome" not in plan
    assert {layer["op"] for layer in plan["layers"]} >= {"Conv", "Gemm"}
    assert all(layer["predicted_ms"] > 0 for layer in plan["layers"])


def test_no_class_is_called_the_worst_where_none_lost_anything(tmp_path):
    (tmp_path / "task.py").write_text(
        "import torch\n"
        "def model(): return torch.nn.Linear(4, 3).eval()\n"
        "def example_inputs(): return torch.zeros(1, 4)\n"
        "def evaluate(predict): return {'accuracy': 1.0, 'per_class': {'cat': 1.0}, 'samples': 1}\n"
    )
    edgekit("build", "task.py", *RPI4, "-o", "even", cwd=tmp_path, EDGEKIT_CACHE=tmp_path / "cache")
    worst = json.loads((tmp_path / "even" / "manifest.json").read_text())["cost"]["class_drop"]
    assert worst["value"] == 0
    assert "class" not in worst["source"]


def test_inspect_shows_a_bundle_its_archive_and_a_model_alike(built, tmp_path):
    folder, _ = built
    seen = [
        json.loads(edgekit("inspect", source, "--json", cwd=folder).stdout)
        for source in ("dist/small-rpi4", "dist/small-rpi4.tar.gz", SMALL)
    ]
    assert seen[0] == seen[1]
    assert [found["quantized"] for found in seen] == [True, True, False]
    assert len({found["macs"] for found in seen}) == 1
    macs = 9 * 32 * 64 + 9 * 32 * 32 * 64 + 128 * 10
    assert seen[2]["macs"] == macs
    text = edgekit("inspect", SMALL, cwd=tmp_path).stdout
    assert "0.6 M multiply-accumulates" in text
    assert "not a bundle: it has no manifest.json" in refusal("inspect", "dist", cwd=folder)


def test_the_archive_holds_the_bundle_and_no_time_of_day(built):
    folder, _ = built
    with tarfile.open(folder / "dist" / "small-rpi4.tar.gz") as archive:
        members = archive.getmembers()
    assert {member.mtime for member in members} == {0}
    assert "small-rpi4/run.py" in {member.name for member in members}


# --- bad input: one line each, the right status, nothing left behind -------------------------------------


def write_model(folder, **changes):
    """A small ONNX file, `y = x w`, with something wrong about it."""
    weight = changes.get("weight", np.ones((4, 2), np.float32))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(changes.get("op", "MatMul"), ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save(model, folder / "model.onnx")


def corrupt(folder):
    (folder / "model.onnx").write_bytes(b"\x08\x07\x12not a model at all" * 9)


def empty(folder):
    (folder / "model.onnx").write_bytes(b"")


def nan_weights(folder):
    write_model(folder, weight=np.full((4, 2), np.nan, np.float32))


def task(text):
    def write(folder):
        (folder / "task.py").write_text("import torch\nfrom torch import nn\n" + text)

    return write


FACTORY_RAISES = task("def model():\n    raise ValueError('no weights today')\n")
NAN_OUTPUT = task(
    "class Net(nn.Module):\n    def forward(self, x):\n        return torch.log(x - 100)\n"
    "def model():\n    return Net()\ndef example_inputs():\n    return (torch.ones(1, 4),)\n"
)
WRONG_SHAPE = task(
    "def model():\n    return nn.Linear(4, 2)\ndef example_inputs():\n    return (torch.ones(1, 5),)\n"
)
NO_CALIBRATION = task(
    "def model():\n    return nn.Linear(4, 2)\ndef example_inputs():\n    return (torch.ones(1, 4),)\n"
    "def calibration_data():\n    return []\n"
)


@pytest.mark.parametrize(
    ("prepare", "source", "options", "said"),
    [
        (None, "none.onnx", (), "none.onnx: no such file"),
        (empty, "model.onnx", (), "model.onnx: the file is empty"),
        (corrupt, "model.onnx", (), "model.onnx: is not an ONNX model"),
        (nan_weights, "model.onnx", (), "`w` holds NaN"),
        (FACTORY_RAISES, "task.py", (), "task.py:4 in model(): ValueError: no weights today"),
        (NAN_OUTPUT, "task.py", (), "NaN"),
        (WRONG_SHAPE, "task.py", (), "the model fails on the example inputs (input 1x5 float32)"),
        (NO_CALIBRATION, "task.py", (), "the calibration data is empty"),
        (write_model, "model.onnx", ("--input-shape", "1x5"), "1x5"),
        (write_model, "model.onnx", ("--calibration", "none.npz"), "none.npz: no such file"),
        (write_model, "model.onnx", ("--recipe", "none.yaml"), "none.yaml: cannot be read"),
        (write_model, "model.onnx", ("--target", "rpi44"), "did you mean `rpi4`"),
        (write_model, "model.onnx", ("--latency", "0ms"), "--latency: must be more than 0"),
        (write_model, "model.onnx", ("--size", "-1MB"), "--size: must be more than 0"),
        (write_model, "model.onnx", ("--max-drop", "0%"), "--max-drop: must be more than 0"),
        (write_model, "model.onnx", ("--memory", "many"), "--memory: `many` is not a number with a unit"),
        (write_model, "model.onnx", ("-o", "model.onnx"), "model.onnx: is a file"),
        (write_model, "model.onnx", ("-o", "."), "is the folder that you are in"),
        (write_model, "model.onnx", ("-o", "x" * 101), "is no name for a bundle"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(cache, tmp_path, prepare, source, options, said):
    if prepare:
        prepare(tmp_path)
    before = sorted(tmp_path.iterdir())
    target = () if "--target" in options else ("--target", "rpi4")
    line = refusal("build", source, *target, *options, cwd=tmp_path, EDGEKIT_CACHE=cache)
    assert said in line
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_a_full_disk_is_status_4_and_leaves_nothing_behind(onnx_file, tmp_path):
    (tmp_path / "out").mkdir()
    build = f"build {onnx_file} {' '.join(RPI4)} -o {tmp_path}/out/bundle"
    script = (
        f"mount -t tmpfs -o size=100k tmpfs {tmp_path}/out && "
        f"{sys.executable} -m edgekit {build}; status=$?; "
        f"ls -A {tmp_path}/out; exit $status"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env=environment(EDGEKIT_CACHE=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_ctrl_c_leaves_nothing_half_written_and_a_rerun_goes_on(tmp_path):
    quantize = ["--quantize", "static,route=ort-static"]
    command = [sys.executable, "-m", "edgekit", "build", str(SMALL), *RPI4, *quantize]
    env = environment(EDGEKIT_CACHE=str(tmp_path / "cache"))
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "convert to ONNX" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    # Python ends itself by the signal where the interrupt passed through exec(); a shell says 130 to both.
    assert process.wait(timeout=60) in (130, -signal.SIGINT), rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "dist").exists()
    assert not list((tmp_path / "cache").glob(".partial-*"))
    done = edgekit(*command[3:], cwd=tmp_path, EDGEKIT_CACHE=tmp_path / "cache")
    assert "convert to ONNX from the cache" in done.stderr


def test_offline_puts_the_devices_packages_and_pip_into_the_bundle(cache, tmp_path):
    (tmp_path / "pi.yaml").write_text("extends: rpi4\npython: ['3.11']\n")
    options = ("-t", "pi.yaml", "--runtime", "onnxruntime", "--offline", "-o", "b")
    done = edgekit("build", SMALL, *options, cwd=tmp_path, EDGEKIT_CACHE=cache)
    assert "fetch the device's packages" in done.stderr
    names = sorted(path.name for path in (tmp_path / "b" / "wheels").iterdir())
    assert [name for name in names if name.startswith("onnxruntime-1.31.1-cp311-cp311-manylinux")]
    assert not [name for name in names if "x86_64" in name]
    assert "--no-index --find-links wheels/" in (tmp_path / "b" / "README.md").read_text()
    (installer,) = [name for name in names if name.startswith("pip-")]
    assert f"python wheels/{installer}/pip install" in (tmp_path / "b" / "README.md").read_text()


def test_a_target_that_does_not_tell_its_glibc_has_no_offline_bundle(cache, tmp_path):
    board = yaml.safe_load((TARGETS / "rpi4.yaml").read_text())
    del board["glibc"]
    (tmp_path / "board.yaml").write_text(yaml.safe_dump(board))
    said = refusal("build", SMALL, "-t", "board.yaml", "--offline", cwd=tmp_path, EDGEKIT_CACHE=cache)
    assert said.startswith("board: glibc: is missing, and `--offline` needs it; add it to the target")
