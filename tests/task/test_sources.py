"""Each kind of source that a user may name becomes the same kind of task."""

import numpy as np
import pytest
import safetensors.torch
import torch
from modelfiles import (
    EXAMPLE,
    NETWORK,
    TASK,
    Linear,
    load,
    refusal,
    write,
    write_onnx,
    write_pt2,
    write_torchscript,
)

SHAPE = {"input_shape": ("1x4",)}


def reference(task):
    """What the network of `Linear` gives for the task's example."""
    with torch.no_grad():
        return Linear()(torch.from_numpy(task.example[0])).numpy()


def outputs(task):
    with torch.no_grad():
        return task.model(*map(torch.from_numpy, task.example)).numpy()


def test_a_task_file_gives_a_model_and_everything_else_it_defines(tmp_path):
    path = write(
        tmp_path / "cats" / "task.py",
        TASK
        + "def calibration_data():\n    return [(torch.full((1, 4), float(i)),) for i in range(5)]\n"
        + "def training_data():\n    return [(torch.ones(2, 4), torch.ones(2, dtype=torch.int64))] * 3\n"
        + "def evaluate(predict):\n    return 0.5\n"
        + "dynamic_axes = {'x': {0: 'batch'}}\noutput_names = ('logits',)\n",
    )
    task = load(path)
    assert task.name == "cats"
    assert [(spec.name, spec.shape, spec.dtype) for spec in task.inputs] == [("x", ("batch", 4), "float32")]
    assert task.output_names == ("logits",)
    assert [call[0][0, 0] for call in task.calibration] == [0, 1, 2, 3, 4]
    batches = task.training()
    assert len(batches) == len(list(batches)) == len(list(batches)) == 3
    assert task.evaluate(None) == 0.5
    assert not task.model.training
    assert task.notes == ()


def test_a_task_file_needs_no_more_than_a_model(tmp_path):
    path = write(tmp_path / "net.py", NETWORK + "def model():\n    return make()\n")
    task = load(path, **SHAPE)
    assert (task.name, task.calibration, task.training, task.evaluate) == ("net", None, None, None)
    assert task.example[0].shape == (1, 4)


def test_the_task_file_may_return_the_path_of_a_model_file_beside_it(tmp_path, monkeypatch):
    path = write(tmp_path / "there" / "task.py", "def model():\n    return 'net.onnx'\n")
    write_onnx(tmp_path / "there" / "net.onnx")
    monkeypatch.chdir(tmp_path)
    assert load(path).inputs[0].shape == (1, 4)


def test_a_factory_in_a_file_or_in_a_module_gives_the_model(tmp_path, monkeypatch):
    write(tmp_path / "pack" / "nets.py", NETWORK)
    write(tmp_path / "pack" / "__init__.py", "")
    monkeypatch.chdir(tmp_path)
    for source in ("pack/nets.py:make", "pack.nets:make"):
        task = load(source, **SHAPE)
        assert task.name == "make"
        np.testing.assert_array_equal(outputs(task), reference(task))


def test_an_onnx_file_says_its_own_inputs_and_outputs(tmp_path):
    task = load(write_onnx(tmp_path / "net.onnx"))
    assert [(spec.name, spec.shape, spec.dtype) for spec in task.inputs] == [("x", (1, 4), "float32")]
    assert (task.name, task.output_names) == ("net", ("y",))


def test_an_exported_program_brings_its_example_and_its_dynamic_axes(tmp_path):
    task = load(write_pt2(tmp_path / "net.pt2", dynamic=True))
    assert task.example[0].shape == (1, 4), "two samples are how a dynamic batch is exported, not how it runs"
    assert load(write_pt2(tmp_path / "fixed.pt2")).example[0].shape == (2, 4)
    (spec,) = task.inputs
    assert isinstance(spec.shape[0], str)
    assert spec.shape[1] == 4
    np.testing.assert_allclose(outputs(task), reference(task), rtol=1e-6)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ts", ".jit"])
def test_torchscript_is_known_by_its_content(tmp_path, suffix):
    task = load(write_torchscript(tmp_path / f"net{suffix}"), **SHAPE)
    assert task.inputs[0].name == "x"
    np.testing.assert_allclose(outputs(task), reference(task), rtol=1e-6)


def weights_files(folder):
    state = Linear().state_dict()
    safetensors.torch.save_file(state, folder / "net.safetensors")
    torch.save(state, folder / "net.pth")
    torch.save({"epoch": 3, "model_state_dict": state}, folder / "checkpoint.pt")
    torch.save({f"module.{key}": value for key, value in state.items()}, folder / "parallel.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return ["net.safetensors", "net.pth", "checkpoint.pt", "parallel.pth", "old.pth"]


def test_weights_go_into_the_network_of_the_factory(tmp_path):
    factory = write(tmp_path / "nets.py", NETWORK.replace("manual_seed(0)", "manual_seed(9)"))
    for name in weights_files(tmp_path):
        task = load(tmp_path / name, model_factory=f"{factory}:make", **SHAPE)
        np.testing.assert_array_equal(outputs(task), reference(task), err_msg=name)


def test_weights_without_a_factory_are_refused_with_the_option_to_add(tmp_path):
    for name in weights_files(tmp_path):
        line = refusal(tmp_path / name)
        assert "2 tensors" in line
        assert "--model-factory" in line


def test_weights_that_do_not_fit_the_network_are_refused_with_their_names(tmp_path):
    factory = write(tmp_path / "nets.py", NETWORK)
    torch.save({"linear.weight": torch.ones(3, 5), "other": torch.ones(1)}, tmp_path / "net.pth")
    line = refusal(tmp_path / "net.pth", model_factory=f"{factory}:make")
    assert "1 missing (linear.bias)" in line
    assert "1 unexpected (other)" in line
    assert "linear.weight 3x5 for 3x4" in line


def test_options_override_the_task_file(tmp_path):
    path = write(
        tmp_path / "task.py",
        TASK
        + "def calibration_data():\n    return [(torch.zeros(1, 4),)]\n"
        + "def training_data():\n    return [1]\n"
        + "def evaluate(predict):\n    return 0.1\n",
    )
    other = write(
        tmp_path / "other.py", "def train():\n    return [2]\ndef score(predict):\n    return 0.2\n"
    )
    np.savez(tmp_path / "data.npz", x=np.ones((7, 4)))
    task = load(
        path,
        calibration=str(tmp_path / "data.npz"),
        training=f"{other}:train",
        evaluate=f"{other}:score",
        input_shape=("1x4",),
    )
    assert len(task.calibration) == 7
    assert list(task.training()) == [2]
    assert task.evaluate(None) == 0.2
    assert task.example[0].tolist() == [[1, 1, 1, 1]]


def test_names_given_by_the_example_are_the_names_of_the_artifact(tmp_path):
    body = NETWORK + "def model():\n    return make()\n"
    path = write(
        tmp_path / "task.py", body + "def example_inputs():\n    return {'image': torch.ones(1, 4)}\n"
    )
    assert load(path).inputs[0].name == "image"


def test_inputs_by_name_go_where_forward_names_them(tmp_path):
    path = write(
        tmp_path / "task.py",
        "import torch\nfrom modelfiles import TwoInputs\ndef model():\n    return TwoInputs()\n"
        "def example_inputs():\n    return {'right': torch.ones(1, 2), 'left': torch.zeros(1, 2)}\n",
    )
    task = load(path)
    assert [spec.name for spec in task.inputs] == ["left", "right"]
    assert [array.max() for array in task.example] == [0, 1]
    assert task.output_names == ("sum", "left_out"), "a name of an input is not free for an output"


def test_an_input_that_would_be_skipped_is_asked_for(tmp_path):
    path = write(
        tmp_path / "task.py",
        "import torch\nfrom modelfiles import TwoInputs\ndef model():\n    return TwoInputs()\n"
        "def example_inputs():\n    return {'left': torch.ones(1, 2), 'scale': torch.ones(1, 2)}\n",
    )
    assert "no `right`; the model takes left, right, scale" in refusal(path)


def test_a_function_whose_name_is_nearly_a_part_is_pointed_out(tmp_path):
    path = write(tmp_path / "task.py", TASK + "def calibration_dat():\n    return []\n")
    (note,) = load(path).notes
    assert "`calibration_dat` is not a part of a task file" in note
    assert "did you mean `calibration_data`?" in note


def test_two_tasks_may_each_have_a_module_of_the_same_name_beside_them(tmp_path):
    for size in (4, 6):
        write(tmp_path / str(size) / "nets.py", NETWORK.replace("Linear(4", f"Linear({size}"))
        text = EXAMPLE.replace("1, 4", f"1, {size}")
        write(tmp_path / str(size) / "task.py", "import torch\nfrom nets import make as model\n" + text)
    for size in (4, 6, 4):
        assert load(tmp_path / str(size) / "task.py").model.linear.in_features == size


def test_a_network_that_learns_its_shapes_from_the_first_call_is_run_once(tmp_path):
    path = write(tmp_path / "nets.py", "import torch\ndef make():\n    return torch.nn.LazyLinear(3)\n")
    assert load(f"{path}:make", **SHAPE).model.weight.shape == (3, 4)
