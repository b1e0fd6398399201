"""Sources that cannot be used: one true line each, exit status 2."""

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modelfiles import (
    EXAMPLE,
    NETWORK,
    TASK,
    Linear,
    TwoInputs,
    load,
    refusal,
    refused,
    write,
    write_onnx,
    write_pt2,
)

SUFFIXES = [".onnx", ".pt2", ".pt", ".pth", ".ts", ".safetensors"]
HTML = "\n<!DOCTYPE html><html><body>404</body></html>"


def task(folder, body):
    return write(folder / "task.py", "import torch\n" + body)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".py"])
def test_a_missing_file_is_named_with_its_near_miss(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / f"network{suffix}", "x")
    assert refusal(f"netwrk{suffix}") == f"netwrk{suffix}: no such file; did you mean `network{suffix}`?"
    assert "the folder nowhere does not exist" in refusal(f"nowhere/net{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_called_empty(tmp_path, suffix):
    path = write(tmp_path / f"net{suffix}", "")
    assert "the file is empty" in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_web_page_or_a_pointer_saved_as_a_model_is_called_that(tmp_path, suffix):
    assert "is a web page, not a model" in refusal(write(tmp_path / f"a{suffix}", HTML))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"
    assert "run `git lfs pull`" in refusal(write(tmp_path / f"b{suffix}", pointer))


@settings(max_examples=30, deadline=None)
@given(data=st.binary(min_size=1, max_size=200), suffix=st.sampled_from(SUFFIXES))
def test_any_other_bytes_are_refused_in_one_line(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"net{suffix}"
    path.write_bytes(data)
    refusal(path)


@settings(max_examples=30, deadline=None)
@given(place=st.floats(0, 1), flip=st.integers(1, 255), keep=st.booleans())
def test_a_damaged_file_is_loaded_or_refused_in_one_line(tmp_path_factory, place, flip, keep):
    folder = tmp_path_factory.mktemp("damaged")
    torch.save(Linear().state_dict(), folder / "net.pth")
    factory = f"{write(folder / 'nets.py', NETWORK)}:make"
    for path in (write_onnx(folder / "net.onnx"), folder / "net.pth"):
        data = bytearray(path.read_bytes())
        at = int(place * (len(data) - 1))
        data[at] ^= flip
        path.write_bytes(data if keep else data[:at])
        error = refused(partial(load, path, input_shape=("1x4",), model_factory=factory))
        assert error is None or (error.exit_status == 2 and "\n" not in str(error))


@pytest.mark.parametrize("suffix", [".pt2", ".ts"])
def test_a_torn_archive_is_called_damaged(tmp_path, suffix):
    path = write_pt2(tmp_path / "net.pt2")
    torn = tmp_path / f"torn{suffix}"
    torn.write_bytes(path.read_bytes()[:-200])
    line = refusal(torn)
    assert str(torn) in line


def test_something_that_is_no_source_at_all_is_told_what_is_one(tmp_path):
    for source in ("resnet", tmp_path / "net.h5", "a/b/c"):
        line = refusal(source)
        assert "task.py" in line or "does not exist" in line
    assert "did you mean" in refusal(write(tmp_path / "task.py", TASK).parent)
    assert "unknown suffix `.h5`" in refusal(write(tmp_path / "net.h5", "x"))


def test_code_of_the_user_that_raises_is_named_with_file_and_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raising = "def model():\n    x = 1\n    raise ValueError('no\\nweights')\n"
    assert refusal(task(tmp_path, raising)) == "task.py:4 in model(): ValueError: no"
    assert "a.py:2: SyntaxError" in refusal(write(tmp_path / "a.py", "x = 1\ndef model(:\n"))
    line = refusal(write(tmp_path / "b.py", "import not_there_at_all\n"))
    assert "b.py:1: ModuleNotFoundError" in line
    assert "install it" in line
    assert "c.py:2 in make(): the code ends the program" in refusal(
        f"{write(tmp_path / 'c.py', 'def make():' + chr(10) + '    exit(3)')}:make"
    )


@pytest.mark.parametrize("part", ["example_inputs", "calibration_data"])
def test_a_part_that_raises_is_named_with_its_line(tmp_path, part):
    path = task(tmp_path, NETWORK + f"def model():\n    return make()\ndef {part}():\n    yield 1 / 0\n")
    line = refusal(path)
    assert f"in {part}()" in line
    if part == "calibration_data":
        assert "ZeroDivisionError" in line


def test_a_task_file_without_a_model_or_with_something_else_for_one_is_refused(tmp_path):
    assert "defines no `model`; did you mean `modl`?" in refusal(task(tmp_path, "def modl():\n    pass\n"))
    assert "`model` is a int" in refusal(write(tmp_path / "b.py", "model = 3\n"))
    assert "returns a NoneType" in refusal(write(tmp_path / "c.py", "def model():\n    pass\n"))
    assert "no such file" in refusal(write(tmp_path / "d.py", "def model():\n    return 'net.onnx'\n"))


def test_a_factory_that_is_not_there_is_refused(tmp_path):
    path = write(tmp_path / "nets.py", NETWORK)
    assert "defines no `mak`; did you mean `make`?" in refusal(f"{path}:mak")
    assert "no such module" in refusal("no.such.module:make")
    assert "is not a function" in refusal(f"{write(tmp_path / 'a.py', 'make = 3')}:make")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_no_numbers_are_named(tmp_path, value):
    body = f"net = make()\nnet.linear.weight.data[1, 2] = float('{value}')\ndef model():\n    return net\n"
    word = {"nan": "NaN", "inf": "infinite values"}[value]
    assert f"the weight `linear.weight` holds {word} (1 of 12 values)" in refusal(
        task(tmp_path, NETWORK + body + EXAMPLE)
    )


def test_nan_weights_of_an_onnx_file_are_named(tmp_path):
    path = write_onnx(tmp_path / "net.onnx", weight=np.full((4, 3), np.nan, np.float32))
    assert "initializer `w` holds NaN (12 of 12 values)" in refusal(path)


def test_outputs_that_are_no_numbers_are_named(tmp_path):
    body = "class Log(torch.nn.Module):\n    def forward(self, x):\n        return {'z': torch.log(x - 2)}\n"
    path = task(tmp_path, body + "def model():\n    return Log()\n" + EXAMPLE)
    assert "the model's `z` holds NaN on the example inputs" in refusal(path)
    assert "its input was made up" in refusal(f"{path}:Log", input_shape=("1x4",))


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        ("'text'", "the model's output is a str"),
        ("(x, 3)", "the model's output[1] is a int"),
        ("{'a': [None]}", "the model's output[a][0] is a NoneType"),
        ("()", "the model's output is empty"),
    ],
)
def test_outputs_that_are_no_tensors_are_named(tmp_path, returned, line):
    body = f"class Odd(torch.nn.Module):\n    def forward(self, x):\n        return {returned}\n"
    assert line in refusal(task(tmp_path, body + "def model():\n    return Odd()\n" + EXAMPLE))


def test_an_example_that_the_model_does_not_take_is_shown(tmp_path):
    line = refusal(
        write(tmp_path / "nets.py", NETWORK + "def model():\n    return make()\n"), input_shape=("1x5",)
    )
    assert "the model fails on the example inputs (x 1x5 float32)" in line
    assert "in forward()" in line
    assert "2 arrays for 1 input" in refusal(tmp_path / "nets.py", input_shape=("1x4", "1x4"))


def test_an_example_that_is_none_is_refused(tmp_path):
    start = NETWORK + "def model():\n    return make()\ndef example_inputs():\n    return "
    for returned, line in (
        ("3", "`x` is a int"),
        ("()", "no inputs are given"),
        ("torch.full((1, 4), float('nan'))", "`x` holds NaN"),
        ("torch.ones(0, 4)", "`x` holds no values"),
        ("torch.ones(1, 4).to_sparse()", "sparse"),
    ):
        assert line in refusal(write(tmp_path / "task.py", start + returned)), returned


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ("dynamic_axes = {'y': {0: 'batch'}}", "asked of `y`, which is no input"),
        ("dynamic_axes = {'x': {2: 'batch'}}", "`x` has no axis 2"),
        ("dynamic_axes = {'x': [0]}", "is not of the right form"),
        ("dynamic_axes = {'x': {0: 'a b'}}", "is not of the right form"),
        ("output_names = ('a', 'b')", "output_names has 2 names, the model gives 1 outputs"),
        ("output_names = ('a', 'a')", "a name stands twice"),
        ("output_names = 'logits'", "is not of the right form"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(tmp_path, declared, line):
    assert line in refusal(write(tmp_path / "task.py", TASK + declared))


def test_a_dynamic_axis_that_the_file_fixes_is_refused(tmp_path):
    write_onnx(tmp_path / "net.onnx")
    path = write(
        tmp_path / "task.py", "def model():\n    return 'net.onnx'\ndynamic_axes = {'x': {0: 'batch'}}\n"
    )
    assert "axis 0 of `x` is asked dynamic, but the model file fixes it" in refusal(path)


def test_a_graph_that_breaks_the_rules_of_onnx_is_refused(tmp_path):
    path = write_onnx(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.node[0].input[1] = "nowhere"
    onnx.save(model, path)
    assert "is not a valid ONNX model" in refusal(path)
    model.graph.node[0].input[1] = "w"
    model.graph.node[0].op_type = "MatrixProduct"
    onnx.save(model, path)
    assert "MatrixProduct" in refusal(path)


def test_a_graph_of_an_operator_that_no_runtime_here_has_is_refused_by_name(tmp_path):
    path = write_onnx(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type, model.graph.node[0].domain = "Mystery", "my.company"
    model.opset_import.add(domain="my.company", version=1)
    onnx.save(model, path)
    assert "Mystery" in refusal(path)


def test_a_program_exported_in_training_mode_is_refused(tmp_path):
    dropout = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout()).train()
    torch.export.save(torch.export.export(dropout, (torch.ones(1, 4),)), tmp_path / "net.pt2")
    assert "was exported in training mode" in refusal(tmp_path / "net.pt2")


def test_a_model_without_weights_on_this_machine_is_refused(tmp_path):
    body = NETWORK + "def model():\n    with torch.device('meta'):\n        return Net()\n" + EXAMPLE
    assert "`linear.weight` holds no values (it is on the meta device)" in refusal(task(tmp_path, body))


class Pair(torch.nn.Module):
    def forward(self, pair):
        return pair[0] + pair[1]


def test_a_program_that_is_not_called_with_one_tensor_after_another_is_refused(tmp_path):
    one = torch.ones(1, 2)
    nested = torch.export.export(Pair(), ((one, one),))
    keyword = torch.export.export(TwoInputs(), (one,), kwargs={"right": one})
    for program, line in ((nested, "by nested containers"), (keyword, "by keyword")):
        torch.export.save(program, tmp_path / "net.pt2")
        assert line in refusal(tmp_path / "net.pt2")
