"""Where the deployed call comes from, and which of its axes are dynamic."""

import numpy as np
import pytest
from modelfiles import (
    NETWORK,
    TASK,
    load,
    refusal,
    save_graph,
    write,
    write_onnx,
    write_pt2,
    write_torchscript,
)
from onnx import TensorProto, helper

BARE = NETWORK + "def model():\n    return make()\n"


def shapes(task):
    return [spec.shape for spec in task.inputs]


def bare(folder, more=""):
    return write(folder / "task.py", BARE + more)


def save(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def test_nobody_says_the_shapes_of_a_torch_module(tmp_path):
    line = refusal(bare(tmp_path))
    assert "nothing says which shapes the model takes" in line
    assert "--input-shape" in line


def test_the_option_comes_before_the_example_and_the_file_s_own(tmp_path):
    assert load(write(tmp_path / "task.py", TASK), input_shape=("2x4",)).example[0].shape == (2, 4)
    assert load(write_pt2(tmp_path / "net.pt2", dynamic=True), input_shape=("5x4",)).example[0].shape == (
        5,
        4,
    )


def test_the_calibration_data_says_the_shape_when_nothing_else_does(tmp_path):
    task = load(bare(tmp_path), calibration=save(tmp_path, x=np.ones((9, 4))))
    assert shapes(task) == [(1, 4)]
    assert task.inputs[0].dtype == "float32", "numpy's float64 is not what the network runs in"
    assert len(task.calibration) == 9
    calls = "def calibration_data():\n    return [torch.ones(2, 4)] * 3\n"
    assert shapes(load(bare(tmp_path, calls))) == [(2, 4)]


def test_an_example_that_was_made_up_gives_way_to_the_first_calibration_call(tmp_path):
    task = load(write_onnx(tmp_path / "net.onnx"), calibration=save(tmp_path, x=np.full((2, 4), 7.0)))
    assert task.example[0].tolist() == [[7, 7, 7, 7]]


def test_an_example_that_was_made_up_is_the_same_every_time(tmp_path):
    first, second = (load(bare(tmp_path), input_shape=("1x4",)) for _ in range(2))
    np.testing.assert_array_equal(first.example[0], second.example[0])
    assert first.example[0].std() > 0


def test_words_of_the_option_name_dynamic_axes(tmp_path):
    task = load(bare(tmp_path), input_shape=("batchx4",))
    assert (shapes(task), task.example[0].shape) == ([("batch", 4)], (1, 4))
    script = load(write_torchscript(tmp_path / "net.ts"), input_shape=("x=batch@3x4",))
    assert (shapes(script), script.example[0].shape) == ([("batch", 4)], (3, 4))


def test_a_word_that_is_no_batch_needs_a_size(tmp_path):
    line = refusal(bare(tmp_path), input_shape=("1xtime",))
    assert "no size along axis 1 (`time`)" in line
    calibration = save(tmp_path, x=np.ones((5, 4)))
    task = load(bare(tmp_path), input_shape=("1xtime",), calibration=calibration)
    assert (shapes(task), task.example[0].shape) == ([(1, "time")], (1, 4))


def test_a_dynamic_batch_of_an_onnx_file_is_one_and_stays_dynamic(tmp_path):
    for axis in ("N", None, 0):
        task = load(write_onnx(tmp_path / "net.onnx", shape=(axis, 4)))
        assert task.example[0].shape == (1, 4)
        assert shapes(task) == [(axis or "batch", 4)]


def test_another_dynamic_axis_of_an_onnx_file_needs_a_size(tmp_path):
    path = write_onnx(tmp_path / "net.onnx", shape=("N", "time", 4))
    line = refusal(path)
    assert "input `x`: it has no size along axis 1 (`time`)" in line
    assert "--input-shape x=1xSIZEx4" in line
    assert load(path, input_shape=("x=1x7x4",)).example[0].shape == (1, 7, 4)
    assert load(path, calibration=save(tmp_path, x=np.ones((3, 9, 4)))).example[0].shape == (1, 9, 4)
    assert "`x` is 1x7x5, the model takes Nxtimex4" in refusal(path, input_shape=("x=1x7x5",))
    assert "`x` is 1x7, the model takes" in refusal(path, input_shape=("x=1x7",))
    assert "no input `y`; the model takes x" in refusal(path, input_shape=("y=1x7x4",))


def test_an_axis_of_the_batch_s_name_is_the_batch_wherever_it_stands(tmp_path):
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ("N", 4)), ("state", (2, "N", 4)))
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([helper.make_node("Add", ["x", "state"], ["y"])], "g", inputs, outputs)
    path = save_graph(graph, tmp_path / "a.onnx")
    assert [array.shape for array in load(path).example] == [(1, 4), (2, 1, 4)]


def onnx_of(folder, op, kind, shape=None):
    """A graph whose input has no rank, or that of `shape`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_value_info("y", kind)]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", inputs, outputs)
    return save_graph(graph, folder / "net.onnx")


def test_an_input_without_a_rank_takes_it_from_the_option_or_the_data(tmp_path):
    path = onnx_of(tmp_path, "Relu", helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    assert "it has no shape" in refusal(path)
    assert load(path, input_shape=("2x3",)).example[0].shape == (2, 3)
    assert load(path, calibration=save(tmp_path, x=np.ones((5, 3)))).example[0].shape == (1, 3)


def test_an_output_that_is_no_tensor_is_refused(tmp_path):
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    path = onnx_of(tmp_path, "SequenceConstruct", kind, (1, 3))
    assert "output `y` is of the kind sequence, only tensors are taken" in refusal(path)


def test_inputs_that_are_made_up_differ(tmp_path):
    write(tmp_path / "net.py", "import torch\nclass Two(torch.nn.Module):\n"
          "    def forward(self, a, b):\n        return a - b\ndef make():\n    return Two()\n")  # fmt: skip
    first, second = load(f"{tmp_path / 'net.py'}:make", input_shape=("1x4", "1x4")).example
    assert not np.allclose(first, second)


def test_an_output_of_text_is_refused(tmp_path):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.STRING, [1, 4])]
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)
    path = save_graph(helper.make_graph([cast], "g", inputs, outputs), tmp_path / "net.onnx")
    assert "output `y` holds text, only numbers are given; export the model without it" in refusal(path)


@pytest.mark.parametrize(("dtype", "value"), [("int64", 1), ("bool", True), ("uint8", 1)])
def test_values_of_other_types_are_made_up_as_ones(tmp_path, dtype, value):
    body = "import torch\nclass Echo(torch.nn.Module):\n    def forward(self, x):\n        return x.float()\n"
    task = load(f"{write(tmp_path / 'nets.py', body)}:Echo", input_shape=(f"1x2:{dtype}",))
    assert task.example[0].dtype == dtype
    assert task.example[0].tolist() == [[value, value]]


def test_a_module_of_any_number_of_inputs_gets_names(tmp_path):
    body = "import torch\nclass Sum(torch.nn.Module):\n    def forward(self, *x):\n        return sum(x)\n"
    path = write(tmp_path / "nets.py", body)
    assert [spec.name for spec in load(f"{path}:Sum", input_shape=("1x2",)).inputs] == ["input"]
    assert [spec.name for spec in load(f"{path}:Sum", input_shape=("1", "1")).inputs] == [
        "input_0",
        "input_1",
    ]


def test_weights_of_another_width_say_the_type_of_the_inputs(tmp_path):
    double = write(tmp_path / "a.py", NETWORK + "def double():\n    return make().double()\n")
    assert load(f"{double}:double", input_shape=("1x4",)).example[0].dtype == np.float64


def test_an_example_beside_an_onnx_file_is_checked_against_it(tmp_path):
    write_onnx(tmp_path / "net.onnx")
    start = "import torch\ndef model():\n    return 'net.onnx'\ndef example_inputs():\n    return "
    assert (
        load(write(tmp_path / "a.py", start + "torch.zeros(1, 4, dtype=torch.float64)")).inputs[0].dtype
        == "float32"
    )
    assert "`x` is 1x5, the model takes 1x4" in refusal(write(tmp_path / "b.py", start + "torch.ones(1, 5)"))
    assert "unknown input `z`" in refusal(write(tmp_path / "c.py", start + "{'z': torch.ones(1, 4)}"))
