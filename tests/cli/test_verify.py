import hashlib
import json

import numpy as np
import pytest
from bundles import run_edgekit

from edgekit.bundle.archive import write_archive


def test_a_sound_bundle_and_its_archive_are_verified(bundle, tmp_path):
    write_archive(bundle, tmp_path / "tiny.tar.gz")
    files = len(json.loads((bundle / "manifest.json").read_text())["files"])
    for path in (bundle, tmp_path / "tiny.tar.gz"):
        done = run_edgekit("verify", path)
        assert done.returncode == 0
        assert done.stdout.startswith(
            f"verified tiny: {files} files have their digests, 8 golden samples agree exactly"
        )


def test_json_is_for_machines(voice_bundle):
    done = run_edgekit("verify", voice_bundle, "--json")
    assert json.loads(done.stdout) == {
        "schema": "edgekit.verify/1",
        "name": "voice",
        "target": "x86-cpu",
        "files": len(json.loads((voice_bundle / "manifest.json").read_text())["files"]),
        "samples": 3,
        "lowest_snr_db": None,
        "min_snr_db": 50.0,
        "signature": None,
        "notes": [],
    }
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "run.py", "runner/check.py", "README.md"])
def test_a_changed_file_is_named_and_the_exit_status_is_5(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    data[-1] ^= 1
    (bundle / name).write_bytes(data)
    done = run_edgekit("verify", bundle)
    assert done.returncode == 5
    assert f"{name} was changed" in done.stderr
    assert done.stdout == ""


def test_a_changed_file_in_an_archive_is_named_too(bundle, tmp_path):
    (bundle / "README.md").write_text("changed")
    write_archive(bundle, tmp_path / "tiny.tar.gz")
    done = run_edgekit("verify", tmp_path / "tiny.tar.gz")
    assert done.returncode == 5
    assert "README.md has 7 bytes" in done.stderr


def test_outputs_that_differ_are_named_even_if_every_digest_is_right(bundle):
    arrays = dict(np.load(bundle / "golden.npz"))
    arrays["s2_o0"] = arrays["s2_o0"] * 1.05
    np.savez(bundle / "golden.npz", **arrays)
    content = (bundle / "golden.npz").read_bytes()
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["golden.npz"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = run_edgekit("verify", bundle)
    assert done.returncode == 5
    assert (
        "golden sample 2: output `logits` has signal-to-noise 26.4 dB, at least 50 is needed" in done.stderr
    )


def test_a_file_that_is_not_listed_is_named(bundle):
    (bundle / "sitecustomize.py").write_text("print('mine')")
    done = run_edgekit("verify", bundle)
    assert done.returncode == 5
    assert "sitecustomize.py is not listed in manifest.json; delete it" in done.stderr


def test_pythons_cache_after_an_import_is_a_note_and_no_failure(bundle):
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"")
    done = run_edgekit("verify", bundle)
    assert done.returncode == 0
    assert "warning: __pycache__/run.cpython-311.pyc" in done.stderr


def test_what_is_no_bundle_is_bad_input_in_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"\x1f\x8b no archive")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        done = run_edgekit("verify", path)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("error: ")


def test_help_shows_an_example():
    assert "edgekit verify dist/digits-rpi4\n" in run_edgekit("verify", "--help").stdout
