"""ONNX files from elsewhere come through every step, or each step says in one line why not."""

import numpy as np
import onnx
import pytest
from networks import calls_of, noise, task_of
from onnx import TensorProto, helper, numpy_helper, parser
from steps import by_way, context_of, convert_graph

from edgekit.compress.half import Half
from edgekit.compress.quantize import Quantize
from edgekit.errors import BadInput
from edgekit.graph.prepare import opset_of, shape_of
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import FLOAT_FLOOR_DB, check_graph, run_onnx

BODY = """
  a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, b)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten<axis = 1>(p)
  y = Gemm<transB = 1>(f, v, c)
"""
WEIGHTS = {"w": noise(16, 3, 3, 3), "b": noise(16), "v": noise(8, 16), "c": noise(8)}


def file_of(body=BODY, *, opset=17, shape="N,3,8,8", out="N,8", ir_version=8, kind="float", domains=""):
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]>'
    model = parser.parse_model(f"{header} g ({kind}[{shape}] x) => ({kind}[{out}] y) {{{body}}}")
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in WEIGHTS.items() if name in used
    )
    return model


def constants(model):
    """The file with every weight in a Constant node."""
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return model


def through(model, *example):
    task = task_of(model, example or [noise(1, 3, 8, 8)])
    prepared, notes = float_graph(model, task, opset=20, ir_version=10)
    check_graph("file -> prepared", model, prepared, calls_of(task, 4), FLOAT_FLOOR_DB)
    return task, prepared, notes


@pytest.fixture
def int8(tmp_path):
    """Quantize a graph by the best way of onnxruntime."""

    def quantize(graph, task):
        context = context_of(task, graph, tmp_path, calls=calls_of(task), max_drop=None)
        converted = convert_graph(task, graph, "onnxruntime", tmp_path)
        return onnx.load(Quantize().apply(converted, task, context).path)

    return quantize


@pytest.fixture
def half(tmp_path):
    """Halve a graph for onnxruntime."""

    def treat(graph, task):
        converted = convert_graph(task, graph, "onnxruntime", tmp_path)
        return onnx.load(Half().apply(converted, task, context_of(task, None, tmp_path)).path)

    return treat


FILES = {
    "opset 9": file_of(opset=9),
    "opset 11 with weights in Constant nodes": constants(file_of(opset=11)),
    "opset 12 and IR 3": file_of(opset=12, ir_version=3),
    "every dimension dynamic": file_of(shape="N,C,H,W", out="N,K"),
    "dimensions without a name": file_of(shape="?,3,?,?", out="?,8"),
    "wrong declared output shape": file_of(out="N,99"),
    "wrong declared rank": file_of(out="N,8,1,1"),
}


@pytest.mark.parametrize("kind", FILES)
def test_float_files_are_prepared_quantized_and_halved(kind, int8, half):
    task, prepared, _ = through(FILES[kind])
    assert opset_of(prepared) >= 13
    assert not [node for node in prepared.graph.node if node.op_type == "Constant"]
    small = int8(prepared, task)
    assert prepared.ByteSize() / small.ByteSize() > 0.5
    check_graph("float32 -> int8", prepared, small, calls_of(task, 4), 10)
    check_graph("float32 -> half", prepared, half(prepared, task), calls_of(task, 4), 30)


def test_a_dimension_that_the_file_keeps_dynamic_stays_dynamic():
    _, prepared, _ = through(FILES["every dimension dynamic"])
    assert shape_of(prepared.graph.input[0]) == ("N", "C", "H", "W")
    assert run_onnx(prepared, [{"x": noise(3, 3, 20, 12)}])[0][0].shape == (3, 8)


@pytest.mark.parametrize("name", ["nncf", "ort-static", "ort-dynamic", "ort-weight-only"])
def test_files_that_are_quantized_already_pass_and_are_left_alone(name, int8, tmp_path):
    task, prepared, _ = through(file_of())
    quantized = by_way(name, task, prepared, tmp_path, calls_of(task, 4))
    _, again, _ = through(quantized)
    with pytest.raises(BadInput, match="is quantized already and is left alone"):
        int8(again, task)


def test_a_qoperator_file_passes_and_is_left_alone(int8):
    weights = np.random.default_rng(0).integers(-9, 9, (4, 3, 3, 3), np.int8)
    body = """
      q = QuantizeLinear(x, s, z) a = QLinearConv(q, s, z, w8, s, none, t, z) y = DequantizeLinear(a, t, z)
    """
    model = file_of(body, shape="1,3,8,8", out="1,4,6,6")
    one = {"s": np.float32(0.1), "t": np.float32(1), "z": np.uint8(128), "none": np.int8(0), "w8": weights}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(a), n) for n, a in one.items())
    task, prepared, _ = through(model)
    with pytest.raises(BadInput, match="is quantized already"):
        int8(prepared, task)


def test_operators_of_onnxruntime_are_kept(int8):
    body = "a = Conv<kernel_shape = [3, 3]>(x, w, b) y = com.microsoft.QuickGelu<alpha = 1.0>(a)"
    model = file_of(body, out="N,16,6,6", domains=', "com.microsoft": 1')
    task, prepared, _ = through(model)
    assert "QuickGelu" in {node.op_type for node in prepared.graph.node}
    check_graph("float32 -> int8", prepared, int8(prepared, task), calls_of(task, 4), 10)


BRANCHES = """
  zero = Constant<value = float {0}>() total = ReduceSum<keepdims = 0>(x) more = Greater(total, zero)
  y = If (more) <
    then_branch = one () => (float[N,16,6,6] p) { p = Conv<kernel_shape = [3, 3]>(x, w, b) },
    else_branch = two () => (float[N,16,6,6] q) { k = Conv<kernel_shape = [3, 3]>(x, w, b) q = Neg(k) }
  >
"""
LOOP = """
  trips = Constant<value = int64 {3}>() true = Constant<value = bool {1}>()
  y = Loop (trips, true, x) <
    body = b (int64 i, bool go, float[N,3,8,8] s) => (bool on, float[N,3,8,8] t) {
      on = Identity(go) h = Conv<kernel_shape = [1, 1]>(s, u) t = Tanh(h)
    }
  >
"""


@pytest.mark.parametrize(("body", "out"), [(BRANCHES, "N,16,6,6"), (LOOP, "N,3,8,8")], ids=["If", "Loop"])
def test_weights_inside_control_flow_run_but_cannot_be_compressed(body, out, int8, half):
    model = file_of(body, out=out)
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name)
        for name, array in {**WEIGHTS, "u": noise(3, 3, 1, 1)}.items()
        if name in body
        and name not in {tensor.name for tensor in model.graph.initializer}
        and name not in ("v", "c")
    )
    task, prepared, _ = through(model)
    with pytest.raises(BadInput, match=r"^quantize net: .*: the weights lie inside If or Loop bodies"):
        int8(prepared, task)
    with pytest.raises(BadInput, match=r"^half: If, Loop and Scan nodes cannot be stored as float16$"):
        half(prepared, task)


def test_integer_inputs_pass(int8):
    model = file_of("f = Cast<to = 1>(x) y = MatMul(f, m)", shape="1,16", out="1,8", kind="int32")
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model.graph.initializer.append(numpy_helper.from_array(noise(16, 8), "m"))
    task, prepared, _ = through(model, np.arange(16, dtype=np.int32)[None])
    assert prepared.graph.input[0].type.tensor_type.elem_type == TensorProto.INT32
    check_graph("float32 -> int8", prepared, int8(prepared, task), calls_of(task, 2), 20)


def test_a_float16_file_runs_and_is_said_to_gain_nothing(half):
    model = file_of("y = Gemm(x, m)", shape="1,16", out="1,8", kind="float16")
    model.graph.initializer.append(numpy_helper.from_array(noise(16, 8).astype(np.float16), "m"))
    task, prepared, _ = through(model, noise(1, 16).astype(np.float16))
    with pytest.raises(BadInput, match="float16 makes it no smaller"):
        half(prepared, task)


def test_a_bfloat16_file_is_refused_with_the_operator():
    model = file_of("y = Gemm(x, m)", shape="1,16", out="1,8", kind="bfloat16")
    tensor = helper.make_tensor("m", TensorProto.BFLOAT16, [16, 8], noise(16, 8).flatten())
    model.graph.initializer.append(tensor)
    prepared, _ = float_graph(model, task_of(model, [noise(1, 16)]), opset=20, ir_version=10)
    with pytest.raises(BadInput, match=r"onnxruntime refuses it: .*(Gemm|bfloat16)"):
        run_onnx(prepared, [{"x": noise(1, 16)}])


def test_weights_in_a_file_of_their_own_are_taken_in(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(file_of(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    _, prepared, _ = through(onnx.load(path))
    assert all(tensor.data_location != TensorProto.EXTERNAL for tensor in prepared.graph.initializer)


def test_names_of_nodes_are_the_files_own():
    model = file_of()
    model.graph.node[0].name = "backbone/first"
    _, prepared, _ = through(model)
    assert prepared.graph.node[0].name == "backbone/first"
