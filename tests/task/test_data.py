"""Calibration data of every form becomes deployed calls, or one line."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelfiles import NETWORK, TASK, load, refusal, refused, write, write_onnx

from edgekit.errors import BadInput
from edgekit.task.data import open_calibration
from edgekit.task.record import MAX_CALIBRATION


@pytest.fixture
def net(tmp_path):
    return write_onnx(tmp_path / "net.onnx")


def npz(folder, name="data.npz", **arrays):
    np.savez(folder / name, **arrays)
    return str(folder / name)


def numbers(count):
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


def test_samples_along_the_batch_or_along_an_axis_before_it_are_cut_into_calls(tmp_path, net):
    for array in (numbers(5), numbers(5)[:, None]):
        calls = load(net, calibration=npz(tmp_path, x=array)).calibration
        assert [call[0].tolist() for call in calls] == [[row] for row in numbers(5).tolist()]


def test_one_unnamed_array_goes_to_the_only_input(tmp_path, net):
    np.save(tmp_path / "data.npy", numbers(3))
    np.savez(tmp_path / "unnamed.npz", numbers(3))
    for name in ("data.npy", "unnamed.npz"):
        assert len(load(net, calibration=str(tmp_path / name)).calibration) == 3


def test_a_folder_of_arrays_is_read_in_the_order_of_its_names(tmp_path, net):
    folder = tmp_path / "data"
    folder.mkdir()
    for index in (2, 0, 1):
        npz(folder, f"{index}.npz", x=np.full((1, 4), index, np.float32))
    calls = load(net, calibration=str(folder)).calibration
    assert [call[0][0, 0] for call in calls] == [0, 1, 2]


def test_a_function_gives_calls_one_by_one(tmp_path, net):
    body = "import torch\ndef calls():\n    for i in range(3):\n        yield {'x': torch.full((1, 4), i)}\n"
    calls = load(net, calibration=f"{write(tmp_path / 'data.py', body)}:calls").calibration
    assert [call[0].dtype for call in calls] == [np.float32] * 3, "whole numbers become the input's type"


def test_endless_calibration_data_is_read_as_far_as_it_is_used_and_the_report_says_so(tmp_path, net):
    body = "import torch\ndef calls():\n    while True:\n        yield torch.ones(1, 4)\n"
    task = load(net, calibration=f"{write(tmp_path / 'data.py', body)}:calls")
    assert len(task.calibration) == MAX_CALIBRATION
    assert f"only the first {MAX_CALIBRATION} calls are used" in task.notes[0]


def test_samples_that_fill_no_batch_are_left_out_and_the_report_says_so(tmp_path):
    net = write_onnx(tmp_path / "net.onnx", shape=(4, 4))
    task = load(net, calibration=npz(tmp_path, x=numbers(10)))
    assert len(task.calibration) == 2
    assert "2 samples left out" in task.notes[0]


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"x": np.ones((0, 4), np.float32)}, "the calibration data is empty; give at least one sample"),
        ({"x": np.ones((3, 5), np.float32)}, "is 3x5"),
        ({"x": np.ones(4, np.float32)}, "is 4"),
        ({"x": np.array(["a"] * 4)}, "only numbers are taken"),
        ({"x": np.full((2, 4), np.nan)}, "`x` holds NaN"),
        ({"x": np.full((2, 4), np.inf)}, "`x` holds infinite values"),
        ({"x": np.full((2, 4), 1e300)}, "float64 values that float32 cannot hold"),
        ({"y": np.ones((2, 4))}, "no `x`, unknown input `y`; the model takes x"),
        ({"x": np.ones((2, 4)), "label": np.ones(2)}, "unknown input `label`"),
        ({}, "the file holds no arrays"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused(tmp_path, net, arrays, line):
    path = npz(tmp_path, **arrays)
    found = refusal(net, calibration=path)
    assert line in found
    assert path in found


def test_calibration_data_that_cannot_be_read_is_refused(tmp_path, net):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").write_bytes(b"x")
    (tmp_path / "none").mkdir()
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{}]), allow_pickle=True)
    body = "def empty():\n    return []\ndef none():\n    pass\ndef labelled():\n    return [(1, 2)]\n"
    code = write(tmp_path / "data.py", body + "thing = 3\n")
    for spec, line in (
        (tmp_path / "no.npz", "no such file"),
        (tmp_path / "images", "images are not read"),
        (tmp_path / "none", "the folder holds no `.npz` or `.npy` files"),
        (pickled, "is not a numpy file that can be read"),
        (write(tmp_path / "page.npz", "<html>"), "is not a numpy file that can be read"),
        (write(tmp_path / "zero.npz", ""), "is not a numpy file that can be read"),
        (write(tmp_path / "data.txt", "1 2"), "is not calibration data"),
        (f"{code}:empty", "the calibration data is empty"),
        (f"{code}:none", "TypeError"),
        (f"{code}:labelled", "2 arrays for 1 input; give the inputs only, without labels"),
        (f"{code}:nothing", "defines no `nothing`"),
        (f"{code}:thing", "is not a function"),
    ):
        assert line in refusal(net, calibration=str(spec)), spec


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 400), flip=st.integers(0, 400), suffix=st.booleans())
def test_any_bytes_are_calibration_data_or_one_line(tmp_path_factory, data, cut, flip, suffix):
    buffer = io.BytesIO()
    np.savez(buffer, x=numbers(2))
    damaged = bytearray(buffer.getvalue())
    damaged[flip % len(damaged)] ^= 0xFF
    for content in (data, bytes(damaged), buffer.getvalue()[:cut]):
        path = tmp_path_factory.mktemp("data") / ("a.npz" if suffix else "a.npy")
        path.write_bytes(content)
        error = refused(lambda path=path: list(open_calibration(str(path)).items))
        assert error is None or "\n" not in str(error)


def test_training_data_is_read_anew_each_time_and_its_errors_name_the_line(tmp_path):
    body = TASK + (
        "class Twice:\n    def __iter__(self):\n        yield 1\n        raise KeyError('label')\n"
        "def training_data():\n    return Twice()\n"
    )
    batches = load(write(tmp_path / "task.py", body)).training()
    for _ in range(2):
        iterator = iter(batches)
        assert next(iterator) == 1
        with pytest.raises(BadInput, match=r"task\.py:\d+ in __iter__\(\): KeyError: 'label'"):
            next(iterator)
    assert not hasattr(batches, "__len__")


def test_training_data_that_is_none_is_refused_when_it_is_used(tmp_path):
    task = load(write(tmp_path / "task.py", NETWORK + TASK + "def training_data():\n    return 3\n"))
    with pytest.raises(BadInput, match=r"in training_data\(\): returns a int; return a DataLoader"):
        task.training()
