"""Files that would run code when they are opened: refused, and the code has not run."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from modelfiles import NETWORK, Linear, load, refusal, write, write_onnx, write_pt2, write_torchscript

from edgekit.task.pt2_code import is_operator, is_size_expression


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def rewrite(path, change, name="model.json"):
    """The archive with one record, or its name, changed."""
    with zipfile.ZipFile(path) as archive:
        records = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in records.items():
            new_entry, new_data = change(entry, data) if entry.endswith(name) else (entry, data)
            archive.writestr(new_entry, new_data)
    return path


def edit(path, old, new, name="model.json"):
    def change(entry, data):
        assert old.encode() in data
        return entry, data.replace(old.encode(), new.encode())

    return rewrite(path, change, name)


def bomb_bytes(path):
    buffer = io.BytesIO()
    torch.save(Bomb(path), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_that_holds_code_is_refused_and_does_not_run(tmp_path, suffix, plain):
    mark, path = tmp_path / "mark", tmp_path / f"net{suffix}"
    path.write_bytes(pickle.dumps({"state_dict": Bomb(mark)}) if plain else bomb_bytes(mark))
    line = refusal(path, model_factory=f"{write(tmp_path / 'nets.py', NETWORK)}:make")
    assert "--trust-pickle" in line or "torch" in line
    assert not mark.exists()


def test_a_whole_pickled_module_is_opened_only_when_it_is_trusted(tmp_path):
    torch.save(Linear(), tmp_path / "net.pt")
    line = refusal(tmp_path / "net.pt", input_shape=("1x4",))
    assert "modelfiles.Linear" in line
    assert "--trust-pickle" in line
    assert load(tmp_path / "net.pt", input_shape=("1x4",), trust_pickle=True).inputs[0].name == "x"


@pytest.mark.parametrize("name", ["model.pt", "MODEL.PT"])
def test_a_pickle_in_place_of_an_exported_program_s_example_is_refused(tmp_path, name):
    mark, path = tmp_path / "mark", write_pt2(tmp_path / "net.pt2")
    rewrite(path, lambda entry, _: (entry.replace("model.pt", name), bomb_bytes(mark)), "model.pt")
    assert "--trust-pickle" in refusal(path)
    assert not mark.exists()


@pytest.mark.parametrize("lead", ["", " \n"])
@pytest.mark.parametrize("target", ["weight_0", "WEIGHT_0"])
def test_a_pickle_in_place_of_an_exported_program_s_weight_is_refused(tmp_path, lead, target):
    mark, path = tmp_path / "mark", write_pt2(tmp_path / "net.pt2")
    config = "model_weights_config.json"
    edit(path, '"use_pickle": false', '"use_pickle": true', config)
    rewrite(path, lambda entry, data: (entry, lead.encode() + data), config)
    rewrite(path, lambda entry, _: (entry.replace("weight_0", target), bomb_bytes(mark)), "weight_0")
    assert "--trust-pickle" in refusal(path)
    assert not mark.exists()


def test_a_pickled_constant_of_an_exported_program_is_refused(tmp_path):
    mark, path = tmp_path / "mark", write_pt2(tmp_path / "net.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", pickle.dumps(Bomb(mark)))
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    text = json.dumps({"config": {"c": meta}})
    rewrite(path, lambda entry, _: (entry, text.encode()), "model_constants_config.json")
    assert "--trust-pickle" in refusal(path)
    assert not mark.exists()


def test_the_pickles_of_these_tests_do_run_when_they_are_trusted(tmp_path):
    mark, path = tmp_path / "mark", write_pt2(tmp_path / "net.pt2")
    rewrite(path, lambda entry, _: (entry, bomb_bytes(mark)), "model.pt")
    refusal(path, trust_pickle=True)
    assert mark.exists()


def test_code_in_a_size_expression_is_refused_and_does_not_run(tmp_path):
    mark, path = tmp_path / "mark", write_pt2(tmp_path / "net.pt2", dynamic=True)

    def change(entry, data):
        tree = json.loads(data)
        text = json.dumps(tree).replace("Symbol('", f"__import__('os').mkdir('{mark}') or Symbol('")
        return entry, text.encode()

    assert "the expression `__import__('os')" in refusal(rewrite(path, change))
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.hub.load", "_operator.call", "torch.ops.aten.from_file.default", "#any:thing"],
)
def test_an_operator_that_is_none_on_tensors_is_refused(tmp_path, target):
    path = write_pt2(tmp_path / "net.pt2")
    edit(path, "torch.ops.aten.linear.default", target)
    assert f"the operator `{target}`" in refusal(path)


def test_a_function_handed_to_an_operator_is_looked_at_too(tmp_path):
    path = write_pt2(tmp_path / "net.pt2")
    edit(path, '"as_tensor": {"name": "x"}}, "kind"', '"as_operator": "torch.os.system"}, "kind"')
    assert "the operator `torch.os.system`" in refusal(path)


def test_a_container_that_would_import_a_module_is_refused(tmp_path):
    path = write_pt2(tmp_path / "net.pt2")
    edit(path, '\\"builtins.dict\\"', '\\"collections.defaultdict\\"')
    assert "the container `collections.defaultdict`" in refusal(path)


def test_a_program_under_a_name_that_is_not_json_is_refused(tmp_path):
    path = write_pt2(tmp_path / "net.pt2")
    rewrite(path, lambda entry, data: (entry.replace("model.json", "model_____"), data))
    assert "the record `models/model_____`" in refusal(path)


class Writer(torch.nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x + torch.from_file(self.path, shared=True, size=4).sum()


def test_torchscript_that_writes_files_is_refused_and_writes_none(tmp_path):
    mark = tmp_path / "mark"
    path = write_torchscript(tmp_path / "net.pt", Writer(str(mark)))
    assert "writes files" in refusal(path, input_shape=("1x4",))
    assert not mark.exists()
    load(path, input_shape=("1x4",), trust_pickle=True)
    assert mark.exists(), "the guard guards against nothing"


def test_an_onnx_file_cannot_read_weights_from_outside_its_folder(tmp_path):
    (tmp_path / "secret").write_bytes(np.ones((4, 3), np.float32).tobytes())
    (tmp_path / "in").mkdir()
    path = write_onnx(tmp_path / "in" / "net.onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    assert "external data cannot be read" in refusal(path)


@given(st.text(max_size=60))
def test_no_text_with_quotes_attributes_or_calls_is_a_size_expression(text):
    if any(mark in text for mark in ("'", '"', "[", "{", ":", "__", "lambda", "eval(", "\\")):
        assert not is_size_expression(text) or "Symbol('" in text


def test_size_expressions_that_torch_writes_are_let_through():
    for text in (
        "Symbol('s7', positive=True, integer=True)",
        "Mul(Symbol('s40', positive=True, integer=True), Add(Symbol('s7', integer=True), Integer(4)))",
        "((s0 + 1)//2)",
        "Max(1, FloorDiv(s0, 2))",
        "floor(s0/2)",
    ):
        assert is_size_expression(text), text


@pytest.mark.parametrize(
    "text", ["().__class__", "eval(s0)", "open('x')", "S('1')", "s0.func(1)", "lambda: 1"]
)
def test_other_python_is_no_size_expression(text):
    assert not is_size_expression(text)


def test_operators_that_exported_programs_use_are_let_through():
    for target in (
        "torch.ops.aten.linear.default",
        "torch.ops.higher_order.cond",
        "torch.sym_max",
        "_operator.add",
    ):
        assert is_operator(target), target
