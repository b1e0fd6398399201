"""The device half of OpenVINO, on files that it made itself."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import noise
from onnx import TensorProto, helper

from edgekit.ondevice.runner import session_openvino
from edgekit.ondevice.runner.session_openvino import load, open_session, settings_of, version

TYPES = {
    np.float32: TensorProto.FLOAT,
    np.float16: TensorProto.FLOAT16,
    np.float64: TensorProto.DOUBLE,
    np.int64: TensorProto.INT64,
    np.int32: TensorProto.INT32,
    np.uint8: TensorProto.UINT8,
    np.bool_: TensorProto.BOOL,
}


def saved(folder, nodes, inputs, outputs):
    """The path of an IR; inputs and outputs are (name, numpy type, shape)."""
    values = [
        [helper.make_tensor_value_info(name, TYPES[dtype], shape) for name, dtype, shape in side]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "g", *values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    path = folder / "model.xml"
    load().save_model(load().Core().read_model(str(folder / "model.onnx")), str(path), compress_to_fp16=False)
    return str(path)


def opened(path, inputs, outputs, **options):
    return open_session(path, threads=1, inputs=inputs, outputs=outputs, options=options)


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A matrix product that keeps a core busy for some milliseconds."""
    place = tmp_path_factory.mktemp("product")
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    side = [(name, np.float32, [1024, 1024]) for name in "ab"]
    return saved(place, [node], side, [("c", np.float32, [1024, 1024])])


def test_the_version_is_that_of_the_package():
    assert version() == __import__("importlib.metadata").metadata.version("openvino")


def test_it_parses_as_python_3_8():
    ast.parse(Path(session_openvino.__file__).read_text(), feature_version=(3, 8))


def test_neither_importing_nor_running_leaves_anything_in_the_home_or_working_folder(product, tmp_path):
    """OpenVINO's import alone would write a client number into ~/intel and report over the network."""
    code = (
        "import sys, numpy; sys.path.insert(0, sys.argv[1]); import session_openvino as s\n"
        "run = s.open_session(sys.argv[2], threads=1, inputs=['a', 'b'], outputs=['c'], options={})\n"
        "x = numpy.ones((1024, 1024), numpy.float32); assert run({'a': x, 'b': x})[0][0, 0] == 1024\n"
    )
    home = dict(os.environ, HOME=str(tmp_path))
    where = Path(session_openvino.__file__).parent
    said = subprocess.run(
        [sys.executable, "-c", code, where, product],
        check=False,
        env=home,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_so_many_threads_compute_as_are_allowed(product, threads):
    run = open_session(product, threads=threads, inputs=["a", "b"], outputs=["c"], options={})
    call = {name: noise(1024, 1024) for name in "ab"}
    before = threads_that_worked()
    start = time.process_time()
    while time.process_time() - start < 0.5:
        run(call)
    spent = {name: ticks - before.get(name, 0) for name, ticks in threads_that_worked().items()}
    assert sum(ticks >= 5 for ticks in spent.values()) == threads


def threads_that_worked():
    """The CPU time of every thread of this process, in ticks."""
    times = {}
    for stat in Path("/proc/self/task").glob("*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        times[stat.parent.name] = int(fields[11]) + int(fields[12])
    return times


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_goes_in_and_comes_out_as_it_is(tmp_path, dtype):
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    path = saved(tmp_path, [node], [("x", dtype, [3])], [("y", dtype, [6])])
    array = np.array([0, 1, 2]).astype(dtype)
    (found,) = opened(path, ["x"], ["y"])({"x": array})
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.concatenate([array, array]))


def test_outputs_come_in_the_order_asked_and_outlive_the_next_call(tmp_path):
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Add", ["x", "x"], ["twice"])]
    outputs = [(name, np.float32, [2]) for name in ("minus", "twice")]
    run = opened(saved(tmp_path, nodes, [("x", np.float32, [2])], outputs), ["x"], ["twice", "minus"])
    first = run({"x": np.array([1, 2], np.float32)})
    run({"x": np.array([5, 6], np.float32)})
    np.testing.assert_array_equal(first, [[2, 4], [-1, -2]])


def test_an_input_that_nothing_reads_may_be_given(tmp_path):
    node = helper.make_node("Neg", ["x"], ["y"])
    inputs = [("unread", np.int64, [1]), ("x", np.float32, [2])]
    run = opened(saved(tmp_path, [node], inputs, [("y", np.float32, [2])]), ["unread", "x"], ["y"])
    (found,) = run({"unread": np.zeros(1, np.int64), "x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(found, [-1, -1])


def test_arrays_of_any_memory_layout_give_the_same(product):
    run = opened(product, ["a", "b"], ["c"])
    array, other = noise(1024, 1024), noise(1024, 1024, seed=1)
    frozen = array.copy()
    frozen.flags.writeable = False
    (expected,) = run({"a": array, "b": other})
    for same in (frozen, np.asfortranarray(array), np.repeat(array, 2, 0)[::2]):
        np.testing.assert_array_equal(run({"a": same, "b": other})[0], expected)


def test_dynamic_axes_and_scalars(tmp_path):
    node = helper.make_node("Mul", ["x", "k"], ["y"])
    inputs = [("x", np.float32, ["batch", 3]), ("k", np.float32, [])]
    run = opened(saved(tmp_path, [node], inputs, [("y", np.float32, ["batch", 3])]), ["x", "k"], ["y"])
    for batch in (1, 4):
        (found,) = run({"x": np.ones((batch, 3), np.float32), "k": np.array(2, np.float32)})
        np.testing.assert_array_equal(found, np.full((batch, 3), 2))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(3, np.float32), "input x is float32, expected int64"),
        (np.array([1, 2**40]), "input x has a value beyond 32 bits"),
        (np.array([1, -(2**40)]), "input x has a value beyond 32 bits"),
    ],
)
def test_what_openvino_would_convert_or_wrap_is_refused(tmp_path, array, said):
    node = helper.make_node("Add", ["x", "x"], ["y"])
    path = saved(tmp_path, [node], [("x", np.int64, ["n"])], [("y", np.int64, ["n"])])
    with pytest.raises(ValueError, match=said):
        opened(path, ["x"], ["y"])({"x": array})


def test_a_wrong_shape_is_refused(product):
    run = opened(product, ["a", "b"], ["c"])
    with pytest.raises(RuntimeError):
        run({"a": noise(1024, 3), "b": noise(1024, 1024)})


class Cpu:
    """An OpenVINO that says what a CPU can do."""

    def __init__(self, *capabilities):
        self.capabilities = capabilities

    def get_property(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return list(self.capabilities)


@pytest.mark.parametrize(
    ("asked", "capabilities", "used"),
    [
        ({}, ("FP32", "BF16", "INT8"), "f32"),
        ({"precision": "bf16"}, ("FP32", "BF16"), "bf16"),
        ({"precision": "bf16"}, ("FP32", "INT8"), "f32"),
        ({"precision": "f16"}, ("FP32", "BF16"), "f32"),
        ({"precision": "f16"}, ("FP32", "FP16"), "f16"),
    ],
)
def test_floats_are_computed_as_asked_where_the_cpu_can(asked, capabilities, used):
    assert settings_of(Cpu(*capabilities), 1, asked)["INFERENCE_PRECISION_HINT"] == used
