"""The choice of a runtime and of a way to quantize, as a user asks for them; bundles of other runtimes."""

import json
import os
import subprocess
import venv

import onnx
import pytest
import yaml
from command import SMALL, edgekit, refusal
from networks import noise
from onnx import numpy_helper, parser


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache for all builds here."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A folder with targets of two runtimes and more, and a network that OpenVINO cannot take."""
    folder = tmp_path_factory.mktemp("work")
    two = {"extends": "rpi4", "runtimes": ["openvino", "onnxruntime"]}
    (folder / "two.yaml").write_text(yaml.safe_dump(two))
    # A PC that is not this machine: nothing is timed, and OpenVINO computes in int8 there.
    (folder / "pc.yaml").write_text(yaml.safe_dump({"extends": "x86-cpu", "local": False}))
    (folder / "lite.yaml").write_text(
        yaml.safe_dump({"extends": "rpi4", "runtimes": ["tflite", "onnxruntime"]})
    )
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[1,4,4] x) => (float[1] y)'
    model = parser.parse_model(text + "{ a = MatMul(x, w) [volume] y = Det(a) }")
    model.graph.initializer.append(numpy_helper.from_array(noise(4, 4), "w"))
    onnx.save(model, folder / "det.onnx")
    return folder


@pytest.fixture
def build(work, cache):
    """Build, and what the build says as JSON."""

    def run(*arguments, expect=0, **more):
        options = ["--json", *arguments]
        done = edgekit("build", *options, cwd=work, expect=expect, EDGEKIT_CACHE=cache, **more)
        return json.loads(done.stdout)

    return run


# --- the choice of a runtime ------------------------------------------------------------------------------


def test_a_build_tells_which_runtime_won_and_why_the_other_lost(work, cache):
    done = edgekit("build", SMALL, "-t", "two.yaml", "-o", "won", cwd=work, EDGEKIT_CACHE=cache)
    table = done.stdout.partition("Runtimes, with the network as it is")[2].partition("Candidates")[0]
    assert "- onnxruntime: fastest with " in table
    assert "- openvino: nothing foretells its latency on rpi4: `--runtime openvino`, and measure it" in table
    assert "onnxruntime, " in done.stdout.partition("; built in")[0]
    page = (work / "won.build.html").read_text()
    assert "The runtimes of the target" in page
    assert json.loads((work / "won" / "manifest.json").read_text())["runtime"]["name"] == "onnxruntime"


def test_a_runtime_that_is_not_installed_is_passed_over_with_what_installs_it(build, tmp_path):
    (tmp_path / "ai_edge_litert.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'ai_edge_litert'\")\n"
    )
    options = ["-t", "lite.yaml", "-o", "without", "--size", "1MB"]
    result = build(SMALL, *options, PYTHONPATH=str(tmp_path))
    lost, won = result["runtimes"]
    assert (won["runtime"], won["chosen"]) == ("onnxruntime", True)
    assert lost["reason"].startswith("not tried: tflite is not installed here: ")
    assert lost["reason"].endswith("; pip install 'edgekit[tflite]'")
    assert "No module named 'ai_edge_litert'" in lost["reason"]


def test_one_that_is_asked_for_and_not_installed_is_status_4(work, cache, tmp_path):
    (tmp_path / "ai_edge_litert.py").write_text("raise ModuleNotFoundError('none of it')\n")
    options = ["-t", "lite.yaml", "--runtime", "tflite"]
    more = {"EDGEKIT_CACHE": cache, "PYTHONPATH": str(tmp_path)}
    line = refusal("build", SMALL, *options, cwd=work, expect=4, **more)
    assert line.startswith("tflite is not installed here: ")
    assert "(none of it)" in line
    assert line.endswith("; pip install 'edgekit[tflite]'; `--runtime onnxruntime` can")


def test_a_runtime_that_the_target_lacks_is_refused_before_anything_is_loaded(work, cache):
    options = ["-t", "rpi4", "--runtime", "tensorrt"]
    line = refusal("build", "none.onnx", *options, cwd=work, EDGEKIT_CACHE=cache)
    assert line == "runtime `tensorrt`: is not one of rpi4's: tflite, onnxruntime, openvino"


def test_a_runtime_that_edgekit_lacks_is_refused_with_those_that_it_has(work):
    done = edgekit("build", SMALL, "-t", "rpi4", "--runtime", "ncnn", cwd=work, expect=2)
    assert "'onnxruntime'" in done.stderr


def test_a_runtime_that_cannot_convert_is_passed_over_or_refused_with_one_that_can(work, build, cache):
    result = build("det.onnx", "-t", "two.yaml", "-o", "det", "--size", "1MB")
    assert result["runtime"] == "onnxruntime"
    assert "Det" in result["runtimes"][0]["reason"]
    options = ["-t", "two.yaml", "--runtime", "openvino"]
    line = refusal("build", "det.onnx", *options, cwd=work, EDGEKIT_CACHE=cache)
    assert "Det" in line
    assert line.endswith("`--runtime onnxruntime` can")


def test_a_recipe_for_a_runtime_and_a_number_of_threads_is_replayed_as_it_is(work, build):
    recipe = {
        "steps": [{"step": "quantize", "route": "nncf", "samples": 16}],
        "runtime": "openvino",
        "threads": 3,
    }
    (work / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = build(SMALL, "-t", "pc.yaml", "--recipe", "recipe.yaml", "-o", "replayed")
    (tried,) = result["tried"]
    assert tried["recipe"] == recipe
    assert (result["runtime"], result["threads"]) == ("openvino", 3)
    assert [rival["reason"] for rival in result["runtimes"]] == ["the only one asked for; 1 thread"]
    manifest = json.loads((work / "replayed" / "manifest.json").read_text())
    assert (manifest["runtime"]["name"], manifest["runtime"]["threads"]) == ("openvino", 3)
    assert manifest["recipe"] == recipe
    again = build(SMALL, "-t", "pc.yaml", "--recipe", "recipe.yaml", "--runtime", "openvino", "-o", "twice")
    assert again["reused"]
    assert (work / "twice" / "model.bin").read_bytes() == (work / "replayed" / "model.bin").read_bytes()


def test_a_recipe_for_another_runtime_than_asked_for_is_refused(work, cache):
    (work / "other.yaml").write_text(yaml.safe_dump({"steps": [], "runtime": "openvino"}))
    options = ["-t", "rpi4", "--recipe", "other.yaml", "--runtime", "tflite"]
    line = refusal("build", SMALL, *options, cwd=work, EDGEKIT_CACHE=cache)
    assert line == (
        "the command line: the recipe is for openvino, `--runtime` says tflite; leave one of them out"
    )


# --- the way to quantize ----------------------------------------------------------------------------------


def test_a_way_to_quantize_is_taken_from_the_command_line(build):
    asked = "static,ranges=entropy,samples=16"
    options = ["-t", "rpi4", "--runtime", "onnxruntime", "--quantize", asked, "-o", "entropy"]
    (tried,) = build(SMALL, *options)["tried"]
    (step,) = tried["recipe"]["steps"]
    assert step == {
        "step": "quantize",
        "method": "static",
        "ranges": "entropy",
        "samples": 16,
        "route": "ort-static",
    }
    assert [route["name"] for route in tried["routes"] if route["chosen"]] == ["ort-static"]
    assert tried["name"] == "int8"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("static,rangs=entropy", "`steps.0.quantize.rangs`: unknown key, did you mean `ranges`?"),
        ("static,ranges", "`ranges` is no KEY=VALUE; for example --quantize static,ranges=entropy"),
        ("static,", "`` is no KEY=VALUE"),
        ("statik", "static"),
        ("", "method"),
        ("static,samples=many", "samples"),
        ("static,samples=0", "samples"),
        ("static,revert=perhaps", "revert"),
        ("static,step=prune", "step"),
    ],
)
def test_a_way_to_quantize_that_is_none_is_refused_in_one_line(asked, said, work, cache):
    options = ["-t", "rpi4", "--quantize", asked]
    line = refusal("build", "none.onnx", *options, cwd=work, EDGEKIT_CACHE=cache)
    assert line.startswith("--quantize: ")
    assert said in line


def test_a_recipe_and_a_way_to_quantize_exclude_one_another(work):
    options = ["-t", "rpi4", "--quantize", "static", "--recipe", "recipe.yaml"]
    line = refusal("build", SMALL, *options, cwd=work)
    assert line == "the command line: `--recipe` and `--quantize` exclude one another"


def test_a_way_that_the_runtime_lacks_is_refused_in_one_line(work, cache):
    options = ["-t", "rpi4", "--runtime", "onnxruntime", "--quantize", "static,activations=int16"]
    line = refusal("build", SMALL, *options, cwd=work, EDGEKIT_CACHE=cache)
    assert "onnxruntime has no kernels for int16 activations on a CPU; LiteRT has" in line


# --- bundles of other runtimes ----------------------------------------------------------------------------

FILES = {"openvino": {"model.xml", "model.bin"}, "tflite": {"model.tflite"}}
ROUTE = {"openvino": "nncf", "tflite": "aeq-static"}
PACKAGE = {"openvino": "openvino", "tflite": "ai-edge-litert"}


@pytest.fixture(scope="session", params=FILES)
def other(request, work, cache):
    """A bundle of another runtime than onnxruntime, in int8, and the runtime's name."""
    runtime = request.param
    quantize = f"static,samples=16,route={ROUTE[runtime]}"
    options = ["-t", "pc.yaml", "--runtime", runtime, "--quantize", quantize, "-o", runtime]
    edgekit("build", SMALL, *options, cwd=work, EDGEKIT_CACHE=cache)
    return work / runtime, runtime


def test_a_bundle_of_another_runtime_is_verified_and_timed(other, work):
    bundle, runtime = other
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["runtime"]["name"] == runtime
    assert {manifest["artifact"], *manifest["beside"]} == FILES[runtime]
    assert manifest["inputs"][0]["shape"] == [1, 1, 8, 8]
    assert {path.name for path in (bundle / "runner").glob("session_*.py")} == {f"session_{runtime}.py"}
    assert "golden samples agree" in edgekit("verify", bundle, cwd=work).stdout
    done = edgekit("bench", bundle, "--quick", "--threads", "1", "--json", cwd=work)
    record = json.loads(done.stdout)
    assert record["latency"]["p50_ms"] > 0
    assert record["memory"]["peak_rss_mb"] > 10


def test_it_runs_where_nothing_but_its_requirements_is_installed(other, tmp_path):
    bundle, runtime = other
    venv.create(tmp_path / "device", with_pip=True)
    python = str(tmp_path / "device" / "bin" / "python")
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"]
    subprocess.run([python, *install], cwd=bundle, check=True, timeout=600)
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    names = {entry["name"].lower() for entry in json.loads(listed.stdout)}
    assert {PACKAGE[runtime], "numpy"} <= names
    assert not {"onnx", "onnxruntime", "torch", "edgekit"} & names
    done = subprocess.run(
        [python, "run.py", "--check"], cwd=bundle,
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "agree" in done.stdout
