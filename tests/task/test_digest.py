"""The digest of a task changes when the task does, and only then."""

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from modelfiles import NETWORK, TASK, Linear, load, write, write_onnx, write_pt2, write_torchscript

FILES = {
    "task.py": "import torch\nimport nets\nfrom parts.head import scale\n"
    "def model():\n    torch.manual_seed(0)\n    return nets.make()\n"
    "def example_inputs():\n    return torch.ones(1, 4)\n"
    "def calibration_data():\n    return [torch.ones(1, 4) * i for i in range(3)]\n"
    "def evaluate(predict):\n    import score\n    return score.score(predict)\n",
    "nets.py": NETWORK,
    "parts/__init__.py": "",
    "parts/head.py": "from .deep import scale\n",
    "parts/deep.py": "scale = 1\n",
    "score.py": "def score(predict):\n    return 0.5\n",
    "unused.py": "x = 1\n",
}


def make(folder, **changed):
    """A task of several files, some of them with a line more."""
    for name, text in FILES.items():
        write(folder / name, text + changed.get(name.replace("/", "_").removesuffix(".py"), ""))
    return folder / "task.py"


def test_the_same_task_has_the_same_digest_wherever_it_lies(tmp_path):
    path = make(tmp_path / "a")
    digest = load(path).sources_digest
    assert load(path).sources_digest == digest
    assert load(make(tmp_path / "b" / "c")).sources_digest == digest


@pytest.mark.parametrize("file", ["task", "nets", "parts___init__", "parts_head", "parts_deep", "score"])
def test_a_change_in_any_file_that_the_task_imports_changes_it(tmp_path, file):
    digest = load(make(tmp_path / "a")).sources_digest
    assert load(make(tmp_path / "b", **{file: "\nx = 1\n"})).sources_digest != digest


def test_a_change_in_a_file_that_the_task_does_not_import_does_not(tmp_path):
    digest = load(make(tmp_path / "a")).sources_digest
    assert load(make(tmp_path / "b", unused="\ny = 2\n")).sources_digest == digest


def test_what_other_tasks_imported_does_not_change_it(tmp_path):
    digest = load(make(tmp_path / "a")).sources_digest
    write(tmp_path / "a" / "other.py", "import unused\n" + TASK)
    load(tmp_path / "a" / "other.py")
    load(make(tmp_path / "a")).evaluate(None)
    assert load(make(tmp_path / "a")).sources_digest == digest


def test_weights_example_and_calibration_data_change_it(tmp_path):
    factory = f"{write(tmp_path / 'nets.py', NETWORK)}:make"
    state = Linear().state_dict()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    safetensors.torch.save_file({key: value * 2 for key, value in state.items()}, tmp_path / "b.safetensors")
    np.savez(tmp_path / "a.npz", x=np.ones((2, 4)))
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 4)))

    def digest(source, calibration="a.npz", **more):
        options = {"calibration": str(tmp_path / calibration), "model_factory": factory, **more}
        return load(tmp_path / source, **options).sources_digest

    base = digest("a.safetensors")
    assert digest("a.pth") == base, "the same weights in another format"
    others = {
        digest("b.safetensors"),
        digest("a.safetensors", "b.npz"),
        digest("a.safetensors", input_shape=("2x4",)),
        digest("a.safetensors", input_shape=("batchx4",)),
    }
    assert base not in others
    assert len(others) == 4


def test_the_function_that_is_chosen_from_a_file_changes_it(tmp_path):
    net = write_onnx(tmp_path / "net.onnx")
    code = write(tmp_path / "code.py", "def a(predict):\n    return 1\ndef b(predict):\n    return 1\n")
    options = [{}, {"evaluate": f"{code}:a"}, {"evaluate": f"{code}:b"}, {"training": f"{code}:a"}]
    assert len({load(net, **option).sources_digest for option in options}) == 4


@pytest.mark.parametrize("make_file", [write_pt2, write_torchscript])
def test_the_code_in_a_model_file_changes_it(tmp_path, make_file):
    class Twice(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * 2

    first, second = make_file(tmp_path / "a.pt2"), make_file(tmp_path / "b.pt2", Twice())
    if make_file is write_torchscript:
        first, second = first.rename(tmp_path / "a.ts"), second.rename(tmp_path / "b.ts")
    copy = shutil.copy(first, tmp_path / f"copy{first.suffix}")
    digests = [load(path, input_shape=("2x4",)).sources_digest for path in (first, second, copy)]
    assert digests[0] == digests[2] != digests[1]


def test_an_onnx_file_changes_it_by_its_weights(tmp_path):
    first = load(write_onnx(tmp_path / "a.onnx"))
    same = load(write_onnx(tmp_path / "b.onnx"))
    other = load(write_onnx(tmp_path / "c.onnx", weight=np.zeros((4, 3), np.float32)))
    assert first.sources_digest == same.sources_digest != other.sources_digest
