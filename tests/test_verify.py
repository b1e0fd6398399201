import math

import numpy as np
import onnx
import pytest
from networks import Encoder, TinyCnn, calibrated, calls_of, noise, task_of
from onnx import numpy_helper
from steps import convert_graph

from edgekit.errors import VerificationFailed
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import FLOAT_FLOOR_DB, check_artifact, check_export, check_graph, parity


def spoil(model, op, index, factor=1.02):
    """A copy in which the weight of one node is a little wrong, and that node's name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    node = [node for node in copy.graph.node if node.op_type == op][index]
    weight = next(tensor for tensor in copy.graph.initializer if tensor.name == node.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    return copy, node.name


def test_a_right_export_agrees_to_the_rounding(tiny_cnn, tiny_graph):
    found = check_export(tiny_cnn.model, tiny_graph, calls_of(tiny_cnn))
    assert found.stage == "torch -> onnx"
    assert found.snr_db > 90
    assert found.max_abs < 1e-3
    assert found.top1 == 1
    assert check_graph("off -> on", tiny_graph, tiny_graph, calls_of(tiny_cnn), FLOAT_FLOOR_DB).snr_db > 90


@pytest.mark.parametrize("index", [0, 2])
def test_the_node_of_an_export_that_does_something_else_is_named(tiny_cnn, tiny_graph, index):
    wrong, name = spoil(tiny_graph, "Conv", index)
    with pytest.raises(VerificationFailed, match=rf"first node that diverges is `{name}`"):
        check_export(tiny_cnn.model, wrong, calls_of(tiny_cnn))


def test_the_node_of_a_rewrite_that_does_something_else_is_named():
    task = task_of(Encoder(), [np.arange(12)[None]])
    graph = float_graph(task.model, task, opset=20, ir_version=10)[0]
    wrong, name = spoil(graph, "Gemm", 2)
    with pytest.raises(VerificationFailed, match=rf"float32 -> half: .*first node that diverges is `{name}`"):
        check_graph("float32 -> half", graph, wrong, calls_of(task), FLOAT_FLOOR_DB)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_artifact_is_run_by_its_own_runtime(runtime, tiny_cnn, tiny_graph, tmp_path):
    artifact = convert_graph(tiny_cnn, tiny_graph, runtime, tmp_path).artifact
    stage = f"onnx -> {runtime}"
    found = check_artifact(stage, tiny_graph, artifact, calls_of(tiny_cnn), FLOAT_FLOOR_DB)
    assert (found.stage, found.top1, found.floor_db) == (stage, 1, FLOAT_FLOOR_DB)
    assert found.snr_db > 90


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_artifact_that_does_something_else_is_refused_with_the_node_where_it_shows(
    runtime, tiny_cnn, tiny_graph, tmp_path
):
    wrong, name = spoil(tiny_graph, "Conv", 1)
    artifact = convert_graph(tiny_cnn, wrong, runtime, tmp_path).artifact
    named = f"the first node that diverges is `{name}`" if runtime == "onnxruntime" else "no single node"
    with pytest.raises(VerificationFailed, match=f"^onnx -> it: outputs agree to .*; {named}"):
        check_artifact("onnx -> it", tiny_graph, artifact, calls_of(tiny_cnn), FLOAT_FLOOR_DB)


def test_a_module_path_names_the_node(tiny_graph):
    assert "block.0/Conv" in {node.name for node in tiny_graph.graph.node}


def test_a_large_output_hides_no_small_one():
    large, small = np.full((1, 3), 1e6, np.float32), np.array([[1e-3, 2e-3]], np.float32)
    found = parity("a -> b", [[large, small]], [[large, small * 2]], floor_db=50)
    assert found.snr_db == pytest.approx(0, abs=0.01)


def test_class_numbers_count_only_where_nothing_else_is_given():
    scores, classes = np.ones((1, 3), np.float32), np.array([1])
    assert parity("a -> b", [[scores, classes]], [[scores, classes + 1]], floor_db=50).snr_db == math.inf
    assert parity("a -> b", [[classes]], [[classes + 1]], floor_db=50).snr_db == pytest.approx(0)


def test_an_output_of_zeros_agrees_with_zeros():
    zeros = [[np.zeros((1, 4), np.float32)]]
    assert parity("a -> b", zeros, zeros, floor_db=50).snr_db == math.inf


def test_a_mask_of_infinite_values_is_no_failure_but_a_new_nan_is():
    mask = [[np.array([[0.5, -np.inf]], np.float32)]]
    assert parity("a -> b", mask, mask, floor_db=50).snr_db == math.inf
    with pytest.raises(VerificationFailed, match=r"^a -> b: outputs are NaN or infinite"):
        parity(
            "a -> b", [[np.ones((1, 2), np.float32)]], [[np.array([[1, np.nan]], np.float32)]], floor_db=50
        )


def test_other_shapes_are_refused_with_both():
    with pytest.raises(VerificationFailed, match=r"outputs have shapes \[\(1, 3\)\], expected \[\(1, 2\)\]"):
        parity("a -> b", [[np.ones((1, 2))]], [[np.ones((1, 3))]], floor_db=50)


def test_a_network_that_is_not_the_exported_one_is_found_out(tiny_graph):
    other = task_of(calibrated(TinyCnn(), 1, 16, 16), [noise(1, 1, 16, 16)])
    with pytest.raises(VerificationFailed, match=r"stem\.0/Conv"):
        check_export(other.model, tiny_graph, calls_of(other))
