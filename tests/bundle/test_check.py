import pytest
from bundles import as_tensorrt, packed

from edgekit.bundle.check import ENGINE_FILES, check_files, unlisted_files
from edgekit.bundle.manifest import read_manifest
from edgekit.errors import VerificationFailed


def check(bundle):
    return check_files(bundle, read_manifest(bundle))


def test_a_sound_bundle_passes_without_a_note(bundle):
    assert check(bundle) == ()


@pytest.mark.parametrize(
    "name", ["model.onnx", "golden.npz", "run.py", "runner/check.py", "requirements.txt"]
)
def test_one_changed_bit_is_found_and_the_file_named(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(VerificationFailed, match=f"{name} was changed"):
        check(bundle)


def test_a_file_of_another_length_is_found(bundle):
    (bundle / "model.onnx").write_bytes(b"")
    with pytest.raises(VerificationFailed, match=r"model\.onnx has 0 bytes, not"):
        check(bundle)


def test_a_missing_file_is_found(bundle):
    (bundle / "runner" / "facts.py").unlink()
    with pytest.raises(VerificationFailed, match=r"`runner/facts\.py` is missing"):
        check(bundle)


def test_a_link_to_a_file_with_the_right_content_is_not_the_file(bundle, tmp_path):
    moved = (bundle / "model.onnx").rename(tmp_path / "model.onnx")
    (bundle / "model.onnx").symlink_to(moved)
    with pytest.raises(VerificationFailed, match="reached by a link"):
        check(bundle)


def test_a_folder_that_is_a_link_is_not_followed(bundle, tmp_path):
    moved = (bundle / "runner").rename(tmp_path / "runner")
    (bundle / "runner").symlink_to(moved)
    with pytest.raises(VerificationFailed, match="reached by a link"):
        check(bundle)


@pytest.mark.parametrize(
    "name", ["numpy.py", "runner/extra.py", "deep/er/x", "__pycache__/other.cpython-311.pyc"]
)
def test_a_file_that_is_not_listed_is_found(bundle, name):
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("print('mine')")
    with pytest.raises(VerificationFailed, match=f"{name} is not listed"):
        check(bundle)


def test_the_engine_that_tensorrt_made_on_the_device_is_noted_and_nothing_else_beside_it(tmp_path, bundle):
    made = packed(tmp_path / "x", **as_tensorrt())
    for folder in (made, bundle):
        (folder / "engine").mkdir()
        for name in ENGINE_FILES:
            (folder / name).write_bytes(b"")
    assert len(check(made)) == len(ENGINE_FILES)
    (made / "engine" / "other").write_bytes(b"")
    with pytest.raises(VerificationFailed, match="engine/other is not listed"):
        check(made)
    with pytest.raises(VerificationFailed, match="is not listed"):
        check(bundle)


def test_a_link_that_is_not_listed_is_found(bundle):
    (bundle / "numpy").symlink_to("/tmp")
    assert unlisted_files(bundle, read_manifest(bundle).files) == ["numpy"]


def test_pythons_cache_of_run_py_is_noted_and_not_held_against_the_bundle(bundle):
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"")
    notes = check(bundle)
    assert len(notes) == 1
    assert "run.cpython-311.pyc" in notes[0]
