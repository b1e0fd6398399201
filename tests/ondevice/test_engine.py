"""What is decided about TensorRT engines."""

import json
import os
from pathlib import Path

import onnx
import pytest
from bundles import image_network

from edgekit.ondevice.runner import engine

OPTIONS = {"precision": "int8", "workspace_mb": 512}
SEEN = {"tensorrt": "10.3.0", "sm": "8.7", "l4t": "36.4.0"}


@pytest.fixture
def model(tmp_path):
    network = image_network()
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


@pytest.fixture
def kept(model, tmp_path):
    """A folder with an engine, and what it was made for."""
    wanted = engine.describe(model, OPTIONS, **SEEN)
    engine.keep(str(tmp_path / "engine"), b"an engine", wanted)
    return str(tmp_path / "engine"), wanted


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_an_engine_that_was_made_for_the_same_is_used_again(kept):
    assert engine.why_build(*kept) == ""
    assert names_in(kept[0]) == [engine.RECORD, engine.ENGINE]


@pytest.mark.parametrize(
    ("options", "seen", "said"),
    [
        ({}, {"tensorrt": "10.7.0"}, "tensorrt is 10.7.0, the engine was made for 10.3.0"),
        ({}, {"sm": "7.2"}, "sm is 7.2, the engine was made for 8.7"),
        ({}, {"l4t": "35.4.1"}, "jetpack is 5, the engine was made for 6"),
        ({}, {"l4t": "36.3.0"}, "l4t is 36.3.0, the engine was made for 36.4.0"),
        ({"precision": "fp16"}, {}, "precision is fp16, the engine was made for int8"),
        ({"workspace_mb": 64}, {}, "workspace_mb is 64, the engine was made for 512"),
    ],
)
def test_an_engine_is_made_again_when_what_it_depends_on_changes(kept, model, options, seen, said):
    wanted = engine.describe(model, {**OPTIONS, **options}, **{**SEEN, **seen})
    assert engine.why_build(kept[0], wanted) == said


def test_an_engine_is_made_again_when_the_model_changes(kept, model):
    network = onnx.load(model)
    network.producer_name = "another"
    onnx.save(network, model)
    wanted = engine.describe(model, OPTIONS, **SEEN)
    assert engine.why_build(kept[0], wanted).startswith("model_sha256 is ")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / engine.RECORD).unlink(), "no engine is there yet"),
        (lambda folder: (folder / engine.RECORD).write_text("{"), "the record of the engine cannot be read"),
        (lambda folder: (folder / engine.RECORD).write_text("[]"), "the record of the engine cannot be read"),
        (lambda folder: (folder / engine.ENGINE).write_bytes(b"half an"), "the engine is damaged"),
        (lambda folder: (folder / engine.ENGINE).unlink(), "the engine is damaged"),
    ],
)
def test_a_damaged_engine_is_made_again(kept, spoil, said):
    spoil(Path(kept[0]))
    assert engine.why_build(*kept) == said


def test_a_failed_write_leaves_the_engine_that_was_there(kept, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        engine.keep(kept[0], b"a new engine", kept[1])
    monkeypatch.undo()
    assert engine.why_build(*kept) == ""
    assert names_in(kept[0]) == [engine.RECORD, engine.ENGINE]


def test_the_record_says_what_the_engine_was_made_for(kept):
    record = json.loads((Path(kept[0]) / engine.RECORD).read_text())
    assert {name: record["made_for"][name] for name in ("tensorrt", "sm", "l4t", "jetpack")} == {
        **SEEN,
        "jetpack": "6",
    }


def test_the_engine_lies_beside_the_model_or_in_the_users_cache_where_the_bundle_is_read_only(
    model, monkeypatch
):
    assert engine.folder_for(model, {}) == str(Path(model).parent / "engine")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere but on a read-only disk
    folders = {
        engine.folder_for(model, {"HOME": "/h"}).rpartition("/")[0]: "/h/.cache/edgekit/engines",
        engine.folder_for(model, {"HOME": "/h", "XDG_CACHE_HOME": "/x"}).rpartition("/")[
            0
        ]: "/x/edgekit/engines",
        engine.folder_for(model, {"EDGEKIT_CACHE": "/e"}).rpartition("/")[0]: "/e/engines",
    }
    assert all(found == wanted for found, wanted in folders.items())
    assert len(folders) == 3
    assert engine.folder_for(model, {"HOME": "/h"}) != engine.folder_for("/other/model.onnx", {"HOME": "/h"})


@pytest.mark.parametrize(
    ("precision", "fast_fp16", "fast_int8", "expected"),
    [
        ("fp32", True, True, ([], ["TF32"])),
        ("fp16", True, False, (["FP16"], [])),
        ("int8", True, True, (["INT8", "FP16"], [])),
        ("int8", False, True, (["INT8"], [])),
    ],
)
def test_the_flags_are_those_of_the_precision(precision, fast_fp16, fast_int8, expected):
    assert engine.flags(precision, fast_fp16=fast_fp16, fast_int8=fast_int8) == expected


def test_a_precision_that_the_gpu_lacks_is_refused():
    with pytest.raises(ValueError, match="no float16 arithmetic"):
        engine.flags("fp16", fast_fp16=False, fast_int8=True)
    with pytest.raises(ValueError, match="no int8 arithmetic"):  # a Jetson Nano
        engine.flags("int8", fast_fp16=True, fast_int8=False)
    with pytest.raises(ValueError, match="unknown precision 'int4'"):
        engine.flags("int4", fast_fp16=True, fast_int8=True)


def test_the_workspace_is_the_limit_and_at_most_half_of_what_is_free():
    assert engine.workspace_bytes(512, None) == 512_000_000
    assert engine.workspace_bytes(512, 4000) == 512_000_000
    assert engine.workspace_bytes(512, 300) == 150_000_000
    assert engine.available_mb("MemTotal: 9 kB\nMemAvailable:    1000000 kB\n") == 1024.0
    assert engine.available_mb(None) is None


def test_the_version_of_the_system_is_read_from_its_own_file():
    line = "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64\n"
    assert engine.l4t_version(line) == "36.4.0"
    assert engine.l4t_version(None) is None


def test_a_tensorrt_without_calls_by_tensor_name_is_too_old():
    assert engine.too_old("8.2.1.8") == "TensorRT 8.2.1.8 is older than 8.5"
    assert [engine.too_old(version) for version in ("8.5.2", "10.3.0")] == ["", ""]
