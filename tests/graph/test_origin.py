"""Where a node comes from, in graphs that the exporters really write."""

import onnx
import pytest
import torch
from networks import TinyCnn, noise, task_of
from onnx import helper

from edgekit.graph.origin import listed, node_named, origin_of, origins_of
from edgekit.runtimes.float_graph import float_graph


@pytest.fixture(scope="module")
def recorded():
    """As the dynamo exporter leaves it, with its records."""
    example = (torch.from_numpy(noise(1, 1, 16, 16)),)
    return torch.onnx.export(
        TinyCnn().eval(), example, dynamo=True, external_data=False, verbose=False
    ).model_proto


def first(model, operator):
    return next(node for node in model.graph.node if node.op_type == operator)


def test_a_recorded_node_is_named_by_its_module_and_the_users_own_line(recorded):
    place = origin_of(first(recorded, "Conv"))
    assert place.startswith("`stem.0` (networks.py:")


def test_a_node_of_no_module_is_named_by_its_line(recorded):
    assert "(networks.py:" in origin_of(first(recorded, "ReduceMean"))


def test_a_prepared_graph_has_only_names(recorded):
    task = task_of(TinyCnn(), (noise(1, 1, 16, 16),))
    graph, _ = float_graph(task.model, task, opset=20, ir_version=10)
    assert origin_of(first(graph, "Conv")) == "`stem.0`"
    assert "/" not in origins_of(graph, "Conv").replace("networks.py", "")
    assert origin_of(first(graph, "Relu")).startswith("node `")


def test_a_node_without_a_name_is_told_by_what_it_writes():
    assert origin_of(helper.make_node("Det", ["x"], ["y"])) == "the Det that writes `y`"


def test_nodes_in_bodies_are_found():
    inner = helper.make_node("Det", ["x"], ["y"], name="deep")
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [])
    body = helper.make_graph([inner], "body", [], [output])
    node = helper.make_node("If", ["c"], ["z"], name="branch", then_branch=body, else_branch=body)
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    assert origins_of(model, "Det") == "node `deep`"
    assert node_named(model, "deep").op_type == "Det"
    assert node_named(model, "deeper") is None


def test_of_many_places_the_first_are_named():
    assert listed(["a", "b", "a"]) == "a, b"
    assert listed("abcde") == "a, b, c and 2 more"
