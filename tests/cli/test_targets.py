import json
import subprocess
import sys

import jsonschema
import pytest
from click.testing import CliRunner

from edgekit.cli.targets import targets


@pytest.fixture(autouse=True)
def nothing_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(targets, list(arguments), catch_exceptions=False)


def edgekit(*arguments):
    command = [sys.executable, "-m", "edgekit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def own(tmp_path, text, name="mine.yaml"):
    path = tmp_path / "targets" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return f"targets/{name}"


def test_the_list_names_every_target_with_its_board_and_budget():
    done = edgekit("targets")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].split() == ["TARGET", "BOARD", "ARCH", "CORES", "MEMORY", "RUNTIMES", "BUDGET"]
    row = next(line for line in lines if line.startswith("rpi4"))
    assert " ".join(row.split()) == (
        "rpi4 Raspberry Pi 4 Model B aarch64 4 4295 MB tflite, onnxruntime, openvino "
        "p90 66 ms, memory 150 MB, size 10 MB, drop 1.00 %"
    )
    assert len(lines) == 10


def test_a_target_of_ones_own_is_listed_and_a_broken_one_does_not_hide_the_rest(tmp_path):
    own(tmp_path, "extends: rpi4\nbudget: {size_mb: 2}\n", "gate.yaml")
    own(tmp_path, "extends: rpi4\nzebra: 1\n", "broken.yaml")
    done = run()
    assert "size 2 MB" in next(line for line in done.stdout.splitlines() if line.startswith("gate"))
    assert "rpi4" in done.stdout
    assert done.stderr.startswith("cannot be used: targets/broken.yaml: zebra: unknown key")
    assert done.exit_code == 0


def test_the_list_as_json_holds_whole_records(tmp_path):
    own(tmp_path, "extends: rpi4\nzebra: 1\n", "broken.yaml")
    found = {item["name"]: item for item in json.loads(run("--json").stdout)}
    assert found["rpi4"]["budget"]["latency_p90_ms"] == 66
    assert found["rpi4"]["profile"]["cores"] == 4
    assert "unknown key" in found["broken"]["problem"]


def test_show_prints_every_figure_above_its_source():
    lines = run("show", "rpi4").stdout.splitlines()
    assert lines[0] == "rpi4: Raspberry Pi 4 with the 64-bit Raspberry Pi OS"
    assert lines[lines.index("  latency_p90_ms: 66") + 1].startswith("    the 100 ms inside")
    assert lines[lines.index("  clock_mhz: 1500") + 1].startswith("    Raspberry Pi 4 Model B product brief")
    assert "  runtimes: tflite, onnxruntime, openvino" in lines
    pins = [line for line in lines if line.startswith("  requirements.")]
    assert pins == [
        "  requirements.tflite: ai-edge-litert 2.3.0, numpy 2.4.6",
        "  requirements.onnxruntime: onnxruntime 1.31.1, numpy 2.4.6",
        "  requirements.openvino: openvino 2026.4.1, numpy 2.4.6",
    ]
    assert lines[lines.index(pins[0]) + 1].startswith("    wheels for CPython 3.11 and 3.13")
    models = lines[lines.index("cost model of each runtime") :]
    assert models[1].startswith("  onnxruntime: dense 0.8, pointwise")
    assert models[2].startswith("    Fitted by")
    assert any(line.startswith("  tflite: dense 0.762") for line in models)


def test_show_tells_the_tensorrt_of_a_board():
    shown = run("show", "jetson-orin-nano").stdout
    assert "tensorrt: jetpack 6.2, version 10.3.0, opset 20, sm 8.7, int8 yes, workspace_mb 1024" in shown
    assert "has not yet been run on hardware" in " ".join(shown.split())


def test_show_tells_what_one_must_know_to_run_there():
    assert "note: PyPI has no runtime for Android" in run("show", "android-low").stdout


def test_show_as_json_holds_the_sources():
    shown = json.loads(run("show", "x86-cpu", "--json").stdout)
    assert shown["profile"]["name"] == "x86-cpu"
    assert shown["sources"]["profile.clock_mhz"].startswith("estimate: a boost clock")
    assert shown["requirements"]["openvino"]["openvino"] == "2026.4.1"
    assert shown["sources"]["requirements.openvino"].startswith("wheels for CPython")


def test_show_of_an_unknown_target_is_one_line_with_the_near_miss():
    done = edgekit("targets", "show", "rpi44")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "there is no target `rpi44`; did you mean `rpi4`?" in done.stderr


def test_validate_prints_every_problem_on_a_line_and_exits_with_2(tmp_path):
    path = own(tmp_path, "extends: rpi4\nbudget: {latencyy_p90_ms: 5, size_mb: 0}\n")
    fine = own(tmp_path, "extends: rpi4\n", "fine.yaml")
    done = edgekit("targets", "validate", path, fine)
    assert done.returncode == 2
    assert sorted(done.stderr.splitlines()) == [
        "targets/mine.yaml: budget.latencyy_p90_ms: unknown key; did you mean `latency_p90_ms`?",
        "targets/mine.yaml: budget.size_mb: should be greater than 0, not `0`",
    ]
    assert done.stdout == "targets/fine.yaml: valid\n"


def test_validate_as_json_lists_the_problems_of_each_file(tmp_path):
    path = own(tmp_path, "extends: rpi4\nthreads: 0\n")
    done = run("validate", path, "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout) == {path: [f"{path}: threads: should be greater than 0, not `0`"]}


def test_validate_of_a_missing_file_is_one_line():
    done = edgekit("targets", "validate", "none.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("none.yaml: cannot be read: no such file or directory")


@pytest.mark.parametrize("kind", ["target", "profile"])
def test_schema_prints_a_json_schema(kind):
    rules = json.loads(run("schema", kind).stdout)
    jsonschema.Draft202012Validator.check_schema(rules)
    assert rules["title"] == f"edgekit {kind}"


@pytest.mark.parametrize("command", [[], ["show"], ["validate"], ["schema"]])
def test_help_has_an_example(command):
    assert "Example:\n  " in run(*command, "--help").stdout
