"""Our files run where there is tflite-runtime 2.14, or ai-edge-litert, and nothing else of the host's."""

import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TinyCnn, calls_of, noise, task_of
from steps import context_of, converted_of, fresh

from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.tflite_ways import WAYS
from edgekit.ondevice.runner import session_tflite
from edgekit.runtimes.convert import half
from edgekit.signal import snr_db

SOURCE = Path(session_tflite.__file__)
RUN = """
import importlib.util, json, sys
import numpy as np
spec = importlib.util.spec_from_file_location("session", sys.argv[1])
session = importlib.util.module_from_spec(spec)
spec.loader.exec_module(session)
asked = json.loads(sys.argv[2])
calls = np.load(asked["calls"])
for name, (model, options) in asked["models"].items():
    try:
        run = session.open_session(model, threads=1, inputs=["x"], outputs=["scores"], options=options)
    except Exception as error:
        print(json.dumps([name, "{}: {}".format(type(error).__name__, error)]))
        continue
    outputs = [run({"x": calls[key]})[0].tolist() for key in calls.files]
    print(json.dumps([name, outputs]))
print(json.dumps(["version", session.version()]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network in several precisions, by name, and calls."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    network = TinyCnn()
    calls = [tuple(call.values()) for call in calls_of(task_of(network, [noise(1, 1, 16, 16)]), 8)]
    task, converted = converted_of(network, calls[0], "tflite", folder, calls=calls, outputs=["scores"])
    context = context_of(task, converted.graph, folder)
    found = {"float": converted.artifact, "half": half(converted, "float16", fresh(folder))}
    for way in WAYS:
        if way.name in ("aeq-static", "pt2e", "aeq-dynamic", "aeq-weight-only"):
            found[way.name] = way.make(converted, Settings(), task, context, fresh(folder))
    sixteen = Settings(activations="int16")
    found["int16"] = WAYS[0].make(converted, sixteen, task, context, fresh(folder))
    four = Settings(weights="int4")
    found["int4"] = next(w for w in WAYS if w.name == "aeq-weight-only").make(
        converted, four, task, context, fresh(folder)
    )
    path = folder / "calls.npz"
    np.savez(path, *(call[0] for call in calls))
    return found, calls, path


def environment(folder, *packages):
    """The Python of a clean environment with these packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(install, check=True, timeout=300)
    return str(python)


def as_made(files):
    """All models with the options that they were made with."""
    return {name: [str(one.path), dict(one.options)] for name, one in files[0].items()}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return environment(tmp_path_factory.mktemp("old"), "tflite-runtime==2.14.0", "numpy<2")


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    return environment(tmp_path_factory.mktemp("new"), "ai-edge-litert==2.3.0")


def on_device(python, files, models, path=""):
    """What the session file there gives for each model: outputs, or the words of its refusal."""
    asked = json.dumps({"calls": str(files[2]), "models": models})
    done = subprocess.run(
        [python, "-c", RUN, str(SOURCE), asked],
        check=False,  # where the runtime cannot be loaded, asking for its version ends the process
        timeout=120,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": path},
    )
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def agreement(files, name, outputs):
    found, calls, _ = files
    run = found[name].open()
    expected = [run({"x": call[0]})[0] for call in calls]
    return min(snr_db([a], [np.array(b, np.float32)]) for a, b in zip(expected, outputs, strict=True))


@pytest.mark.parametrize("name", ["float", "half", "aeq-static", "pt2e", "int16", "aeq-weight-only"])
def test_tflite_runtime_gives_what_the_host_gives(name, files, old):
    got = on_device(old, files, as_made(files))
    # Integer kernels differ in how they round; a float one in the order of its sums.
    assert agreement(files, name, got[name]) > (30 if name in ("aeq-static", "pt2e") else 80)
    assert got["version"] == "2.14.0"


def test_tflite_runtime_is_not_given_what_it_gets_wrong(files, old):
    got = on_device(old, files, as_made(files))
    assert got["aeq-dynamic"] == (
        "ValueError: tflite-runtime computes dynamically quantized dense layers wrongly where each channel "
        "has its own scale; pip install ai-edge-litert"
    )
    assert got["int4"] == "ValueError: tflite-runtime has no int4 weights; pip install ai-edge-litert"


def test_that_it_gets_them_wrong_is_true(files, old):
    name = "aeq-dynamic"
    got = on_device(old, files, {name: [str(files[0][name].path), {}]})
    assert agreement(files, name, got[name]) < 10


def test_ai_edge_litert_alone_runs_them_all(files, new):
    got = on_device(new, files, as_made(files))
    assert got.pop("version") == "2.3.0"
    assert set(got) == set(files[0])
    for name, outputs in got.items():
        assert agreement(files, name, outputs) > 80


def test_tflite_runtime_beside_numpy_2_says_what_to_do(files, old, tmp_path):
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(tmp_path)]
    subprocess.run([old, *install, "numpy==2.2.6"], check=True, timeout=300)
    got = on_device(old, files, {"float": [str(files[0]["float"].path), {}]}, str(tmp_path))
    said = "ImportError: tflite-runtime 2.14.0 needs numpy < 2, found 2.2.6; pip install 'numpy<2'"
    assert got == {"float": said}


def test_without_either_package_the_import_error_names_both(bare_python):
    code = RUN.split("asked =", maxsplit=1)[0].replace("import numpy as np\n", "") + "session.version()"
    done = subprocess.run(
        [bare_python, "-c", code, str(SOURCE)], check=False, timeout=60, capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: neither ai-edge-litert (")
    assert last.endswith(") nor tflite-runtime")


def test_a_file_with_other_outputs_is_refused(files):
    model = str(files[0]["float"].path)
    with pytest.raises(ValueError, match="has 1 inputs and 1 outputs, expected 1 and 2"):
        session_tflite.open_session(model, threads=1, inputs=["x"], outputs=["a", "b"], options={})


def test_the_answers_of_one_call_survive_the_next(files):
    run = files[0]["float"].open()
    first = run({"x": noise(1, 1, 16, 16)})[0]
    kept = first.copy()
    run({"x": noise(1, 1, 16, 16, seed=9)})
    assert np.array_equal(first, kept)
