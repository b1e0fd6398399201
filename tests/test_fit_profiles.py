import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.target import load_profile

ROOT = Path(__file__).parents[1]


def run(*arguments):
    command = [sys.executable, "benchmarks/fit_profiles.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


KEYS = ("dense", "pointwise", "depthwise", "memory_gbs", "overhead_us", "serial_share")


def fitted(name, runtime):
    printed = run("--fit", name, "--runtime", runtime)
    return {key: float(value) for key, value in re.findall(r"^    (\w+): (\S+)$", printed, re.M)}


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("rpi4", "onnxruntime"),
        ("rpi-zero2w", "onnxruntime"),
        ("jetson-nano", "onnxruntime"),
        ("x86-cpu", "onnxruntime"),
        ("rpi4", "tflite"),
        ("rpi3", "tflite"),
        ("jetson-orin-nano", "tflite"),
        ("android-low", "tflite"),
        ("android-mid", "tflite"),
        ("rpi5", "executorch"),
    ],
)
def test_the_shipped_coefficients_are_those_of_the_fit(name, runtime):
    found, model = fitted(name, runtime), load_profile(name).cost_model[runtime]
    for key in KEYS:
        assert getattr(model, key) == pytest.approx(found[key], rel=0.05), key


@pytest.mark.parametrize(("name", "runtime"), [("rpi4", "tflite"), ("rpi5", "executorch")])
def test_int8_and_the_interval_are_those_of_the_fit_where_a_runtime_has_rows_enough(name, runtime):
    found, model = fitted(name, runtime), load_profile(name).cost_model[runtime]
    for key in ("int8_gain", "low", "high"):
        assert getattr(model, key) == pytest.approx(found[key], rel=0.05), key


def test_a_runtime_without_rows_cannot_be_fitted():
    command = [sys.executable, "benchmarks/fit_profiles.py", "--fit", "jetson-nano", "--runtime", "tflite"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("jetson-nano: no latencies of tflite are in ")


def test_the_table_has_a_row_for_each_fit_and_nine_in_ten_rows_inside_their_interval():
    rows = [line.split() for line in run().splitlines()[1:]]
    assert {row[0] for row in rows} == {path.stem for path in (ROOT / "profiles").glob("*.yaml")}
    assert sorted(row[0] for row in rows if row[1] == "tflite") == [
        "android-low",
        "android-mid",
        "jetson-orin-nano",
        "rpi3",
        "rpi4",
    ]
    assert all(int(row[-1].rstrip("%")) >= 90 for row in rows)
