import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.ondevice.runner.inputs import WrongInput, check, match, read_arrays, read_golden

SPECS = [
    {"name": "image", "shape": ["batch", 3, 4], "dtype": "float32"},
    {"name": "mask", "shape": ["batch"], "dtype": "int64"},
]


def image(batch=2):
    return np.zeros((batch, 3, 4), np.float32)


def mask(batch=2):
    return np.zeros(batch, np.int64)


def test_arrays_that_fit_come_back_and_lists_become_arrays():
    assert [array.shape for array in check([image(), mask()], SPECS)] == [(2, 3, 4), (2,)]
    scalar = [{"name": "rate", "shape": [], "dtype": "int64"}]
    assert check([np.int64(16000)], scalar)[0].shape == ()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([image()], "1 array given, the model takes 2: image, mask"),
        ([image().astype(np.float64), mask()], "`image` is float64, must be float32"),
        ([np.zeros((2, 4, 3), np.float32), mask()], r"shape \[2, 4, 3\], must be \[batch, 3, 4\]"),
        ([np.zeros((3, 4), np.float32), mask()], r"shape \[3, 4\]"),
        ([image(2), mask(3)], "batch is 2 elsewhere"),
        ([image(0), mask(0)], "an empty axis"),
        ([image() * np.nan, mask()], "holds 24 NaN values"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(arrays, words):
    with pytest.raises(WrongInput, match=words):
        check(arrays, SPECS)


def test_files_are_matched_by_order_or_by_name():
    assert [array.size for array in match({"#1": image(), "#2": mask()}, SPECS)] == [24, 2]
    assert [array.size for array in match({"mask": mask(), "image": image()}, SPECS)] == [24, 2]


@pytest.mark.parametrize(
    ("given_arrays", "words"),
    [
        ({"#1": image()}, "1 array given, the model takes 2"),
        ({"image": image(), "other": mask()}, "no input is called other"),
        ({"image": image()}, "the input mask is missing"),
    ],
)
def test_files_that_do_not_match_are_refused(given_arrays, words):
    with pytest.raises(WrongInput, match=words):
        match(given_arrays, SPECS)


def test_objects_in_a_file_are_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.asarray([{"a": 1}], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", np.asarray([{"a": 1}], object), allow_pickle=True)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(WrongInput, match="not a"):
            read_arrays(str(tmp_path / name))


def test_an_archive_that_unpacks_to_more_than_a_gigabyte_is_refused_unread(tmp_path):
    archive = zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("a.npy", "w", force_zip64=True) as member:
        for _ in range(1100):
            member.write(bytes(1_000_000))
    with pytest.raises(WrongInput, match="1100 MB of arrays, at most 1074 are read"):
        read_arrays(str(tmp_path / "bomb.npz"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing.npy", tmp_path):
        with pytest.raises(WrongInput, match="no such file"):
            read_arrays(str(path))


def test_golden_samples_are_read_one_by_one_and_a_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "g.npz", s0_i0=image(), s0_i1=mask(), s0_o0=np.ones(1), s1_i0=image())
    feeds, outputs = read_golden(str(tmp_path / "g.npz"), SPECS, [{}], [0])[0]
    assert list(feeds) == ["image", "mask"]
    assert outputs[0] == [1.0]
    with pytest.raises(WrongInput, match="the array s1_i1 is missing"):
        read_golden(str(tmp_path / "g.npz"), SPECS, [{}], [1])


def test_a_golden_file_that_is_one_array_is_refused(tmp_path):
    np.save(tmp_path / "g.npy", image())
    with pytest.raises(WrongInput, match=r"not a \.npz file"):
        read_golden(str(tmp_path / "g.npy"), SPECS, [{}], [0])


def _archive():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(30.0), b=np.arange(5))
    return buffer.getvalue()


ARCHIVE = _archive()


@settings(max_examples=400, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, len(ARCHIVE) - 1), st.integers(0, 255)), max_size=5))
def test_a_damaged_archive_is_read_or_refused_in_one_line(changes):
    data = bytearray(ARCHIVE)
    for place, byte in changes:
        data[place] = byte
    read_or_refuse(bytes(data))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), start=st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04"]))
def test_any_bytes_are_read_or_refused_in_one_line(data, start):
    read_or_refuse(start + data)


def read_or_refuse(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        path.write_bytes(data)
        try:
            read_arrays(str(path))
        except WrongInput as error:
            assert "\n" not in str(error)  # noqa: PT017 - read or refused, both are right
