"""The conversion matrix: its networks are real, its program leaves no cell empty, its page is true."""

import importlib
import json
import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.artifact import RUNTIMES
from edgekit.cache import digest_file
from edgekit.task.load import Given, load_task
from edgekit.task.usercode import import_file

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SMALL = ROOT / "tests" / "projects" / "small" / "task.py"
PRECISIONS = ("float", "fp16", "int8 PTQ", "int8 QAT", "weight-only")
NETWORKS = ("mobilenetv2", "dscnn", "gru", "vit", "unet", "detector", "resnet18")
LEAST = {
    "resnet20": 0.97,
    "mobilenetv2": 0.97,
    "dscnn": 0.95,
    "gru": 0.94,
    "vit": 0.95,
    "unet": 0.7,
    "detector": 0.75,
}


@pytest.fixture(scope="module")
def matrix():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("matrix")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def rows(matrix):
    """A small network in two runtimes, as `--quick` makes them."""
    return {runtime: matrix.make_row(SMALL, runtime, quick=True) for runtime in ("onnxruntime", "openvino")}


def is_full(cell):
    figures = ("parity_db", "size_ratio", "speed", "p50_ms", "score", "drop")
    return bool(cell["reason"]) != all(isinstance(cell[name], float) for name in figures)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_no_cell_is_empty(rows, runtime):
    cells = rows[runtime]["cells"]
    assert tuple(cells) == PRECISIONS
    assert all(is_full(cell) for cell in cells.values()), cells


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_int8_is_close_to_float_and_smaller(rows, runtime):
    cells = rows[runtime]["cells"]
    assert cells["float"]["parity_db"] >= 50
    assert cells["float"]["size_ratio"] == 1
    assert cells["int8 PTQ"]["way"]
    assert cells["int8 PTQ"]["size_ratio"] > 1.5
    assert 6 <= cells["int8 PTQ"]["parity_db"] < cells["float"]["parity_db"]
    assert abs(cells["int8 PTQ"]["drop"]) <= 0.05


def test_what_is_better_decides_between_static_and_dynamic(matrix):
    row = importlib.import_module("matrix_row")
    assert [name for name, column in row.TRIED.items() if column == "int8 PTQ"] == ["static", "dynamic"]
    assert {"float", *row.TRIED.values()} == set(PRECISIONS)


@pytest.fixture
def deadly(tmp_path):
    """The small network in a task that kills its process when it is judged for the second time."""
    shutil.copy(SMALL, tmp_path / "small.py")
    (tmp_path / "task.py").write_text(
        "import os, pathlib, signal, small\n"
        "from small import calibration_data, example_inputs, model\n"
        "judged = pathlib.Path(__file__).with_name('judged')\n"
        "def evaluate(predict):\n"
        "    judged.write_text((judged.read_text() if judged.exists() else '') + '.')\n"
        "    if judged.read_text() == '..':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return small.evaluate(predict)\n"
    )
    return tmp_path / "task.py"


def test_a_crash_costs_one_cell_and_the_row_is_finished(matrix, deadly):
    cells = matrix.make_row(deadly, "onnxruntime", quick=True)["cells"]
    assert cells["fp16"]["reason"] == "kills the process (SIGKILL)"
    assert "training" in cells["int8 QAT"]["reason"]
    assert not any(cells[name]["reason"] for name in ("float", "int8 PTQ", "weight-only"))
    assert all(is_full(cell) for cell in cells.values())


def test_a_task_that_cannot_be_loaded_ends_the_program(matrix, tmp_path, capfd):
    (tmp_path / "task.py").write_text("def model():\n    raise FileNotFoundError('espeak-ng is missing')\n")
    with pytest.raises(SystemExit):
        matrix.make_row(tmp_path / "task.py", "onnxruntime", quick=True)
    assert "espeak-ng is missing" in capfd.readouterr().err.splitlines()[-1]


def test_rows_are_made_once_and_again_when_the_network_changes(matrix, tmp_path, monkeypatch):
    source = shutil.copy(SMALL, tmp_path / "task.py")
    made = []

    def make_row(path, runtime, *, quick):
        made.append(runtime)
        cells = {name: vars(matrix.Cell(reason="tried")) for name in PRECISIONS}
        return {"date": "2026-01-01", "machine": "here", "cells": cells}

    monkeypatch.setattr(matrix, "make_row", make_row)
    networks = {"small": matrix.Network("Small", source)}
    for _ in range(2):
        matrix.update(tmp_path, networks, [("small", "onnxruntime"), ("small", "tflite")])
    assert made == ["onnxruntime", "tflite"]
    page = (tmp_path / "docs" / "matrix.md").read_text()
    assert page.count("| — tried | — tried | — tried | — tried | — tried |") == 2
    assert page.count("— not made yet") == 4 * len(PRECISIONS)
    source.write_text(source.read_text() + "\nMORE = 1\n")
    matrix.update(tmp_path, networks, [("small", "onnxruntime")])
    assert made == ["onnxruntime", "tflite", "onnxruntime"]


def test_the_code_of_another_runtime_does_not_decide_a_row(matrix, monkeypatch):
    network = matrix.NETWORKS["resnet20"]
    before = {runtime: matrix.key_of(network, runtime) for runtime in ("openvino", "tflite")}

    def changed(path):
        return "changed" if Path(path).stem == "openvino_ways" else digest_file(path)

    monkeypatch.setattr(matrix, "digest_file", changed)
    assert matrix.key_of(network, "openvino") != before["openvino"]
    assert matrix.key_of(network, "tflite") == before["tflite"]


def test_a_cell_says_smaller_or_larger_faster_or_slower(matrix):
    figures = {
        "parity_db": 40.0,
        "size_ratio": 0.5,
        "speed": 2.0,
        "score": 0.9,
        "drop": 0.02,
        "left_in_float": 1,
    }
    cell = vars(matrix.Cell(way="nncf", **figures))
    page = importlib.import_module("matrix_page")
    expected = "40.0 dB, 2.00x larger, 2.00x faster, 90.0%, **loses 2.0%**, 1 layer in float `nncf`"
    assert page.cell_text("int8 PTQ", cell) == expected


def test_of_two_reasons_the_telling_one_is_given(matrix):
    row = importlib.import_module("matrix_row")
    reasons = ["torch has no method `static` (known: dynamic)", "no dense layer"]
    assert row._why(reasons) == "no dense layer"
    assert row._why(reasons[:1] * 2) == reasons[0]


# What is in the repository.


@pytest.fixture(scope="module")
def stored():
    return json.loads((BENCHMARKS / "data" / "matrix.json").read_text())


def test_the_page_has_every_cell_its_date_and_its_machine(matrix, stored):
    text = (ROOT / "docs" / "matrix.md").read_text()
    assert text == matrix.page(stored["rows"], stored["versions"])
    assert re.search(r"Made 20\d\d-\d\d-\d\d.* on .*core", text)
    tables = text.split("\n## ")[1:]
    assert [table.splitlines()[0] for table in tables] == [one.title for one in matrix.NETWORKS.values()]
    for table in tables:
        lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
        assert [line.split("|")[1].split()[0] for line in lines] == list(RUNTIMES)
        for line in lines:
            found = re.split(r"(?<!\\)\|", line)[2:-1]
            assert len(found) == len(PRECISIONS)
            assert all(cell.strip() for cell in found)
    assert "not made yet" not in text
    assert "not yet run on hardware" in text


def test_no_cell_of_the_page_is_silently_wrong(stored):
    assert len(stored["rows"]) == 7 * len(RUNTIMES)
    for row in stored["rows"]:
        for name, cell in row["cells"].items():
            assert is_full(cell), (row["network"], row["runtime"], name)
            assert not cell["reason"].startswith("fails: ")  # an error that is edgekit's own
            if not cell["reason"]:
                least = {"float": 50, "fp16": 30}.get(name, 6)
                assert math.isinf(cell["parity_db"]) or cell["parity_db"] >= least


def test_the_networks_know_their_tasks(stored):
    scores = {
        row["network"]: row["cells"]["float"]["score"]
        for row in stored["rows"]
        if row["runtime"] == "onnxruntime"
    }
    assert {name: score >= LEAST[name] for name, score in scores.items()} == dict.fromkeys(LEAST, True)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Networks that are hardly trained, on little data, in a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.syspath_prepend(BENCHMARKS / "networks")
        speech = importlib.import_module("speech")
        patch.setattr(speech, "ACCENTS", speech.ACCENTS[:2])
        patch.setattr(speech, "VOICES", {part: voices[:3] for part, voices in speech.VOICES.items()})
        yield patch


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_a_task_file_that_edgekit_takes(short, name):
    path = BENCHMARKS / "networks" / f"{name}.py"
    module = import_file(path)
    for constant, value in {
        "EPOCHS": 1,
        "SCENES": {"train": 128, "test": 8},
        "CROPS": {"train": (64, 1), "test": (24, 2)},
    }.items():
        if hasattr(module, constant):
            short.setattr(module, constant, value)
    task = load_task(str(path), Given())
    assert not task.model.training
    assert len(task.calibration) >= 60
    if name == "resnet18":
        return
    batch = next(iter(task.training()))
    assert batch[0].shape[1:] == task.example[0].shape[1:]

    def predict(inputs):
        with torch.no_grad():
            outputs = task.model(torch.from_numpy(np.asarray(inputs)))
        return outputs.numpy() if isinstance(outputs, torch.Tensor) else tuple(one.numpy() for one in outputs)

    assert 0 <= next(iter(task.evaluate(predict).values())) <= 1


def test_no_voice_photograph_or_digit_of_a_test_is_in_training(short):
    speech, scenes = (importlib.import_module(name) for name in ("speech", "scenes"))
    voices = {part: set(names) for part, names in speech.VOICES.items()}
    photographs = {part: set(names.split()) for part, names in scenes.PHOTOGRAPHS.items()}
    digits = {part: {image.tobytes() for image in scenes._digits(part)[0]} for part in ("train", "test")}
    assert not any(one["train"] & one["test"] for one in (voices, photographs, digits))
