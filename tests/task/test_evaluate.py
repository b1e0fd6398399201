"""The user's `evaluate`: what predict() gives it, and what it may give back."""

import numpy as np
import pytest
import torch
from modelfiles import load, save_graph, write, write_onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import BadInput
from edgekit.graph.run import opened
from edgekit.task.evaluate import Score, make_predict, read_score
from edgekit.task.quality import judge_original


def predictor(path, **options):
    task = load(path, **options)
    return make_predict(opened(task.model), task)


@pytest.mark.parametrize("batch", [1, 4, "N"])
@pytest.mark.parametrize("samples", [1, 3, 4, 9])
def test_predict_takes_a_batch_of_any_size(tmp_path, batch, samples):
    predict = predictor(write_onnx(tmp_path / "net.onnx", shape=(batch, 4)))
    x = np.random.default_rng(0).standard_normal((samples, 4))
    np.testing.assert_allclose(predict(x), np.repeat(x.sum(1, keepdims=True), 3, 1), rtol=1e-4, atol=1e-6)


def test_predict_takes_tensors_and_inputs_by_name(tmp_path):
    predict = predictor(write_onnx(tmp_path / "net.onnx"))
    for given in (torch.ones(2, 4), {"x": np.ones((2, 4), np.float32)}):
        assert predict(given).tolist() == [[4, 4, 4]] * 2


def stateful(folder):
    """`y = x + n`, `next = state + 1`; the batch is fixed at 1 and the state's first axis is 2."""
    shapes = {"x": (1, 4), "state": (2, 1, 3), "n": ()}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4)),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, (2, 1, 3)),
    ]
    nodes = [helper.make_node("Add", ["x", "n"], ["y"]), helper.make_node("Add", ["state", "one"], ["next"])]
    weights = [numpy_helper.from_array(np.float32(1), "one")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return save_graph(graph, folder / "net.onnx")


def test_predict_feeds_a_state_and_gives_several_outputs(tmp_path):
    predict = predictor(stateful(tmp_path))
    y, state = predict(np.ones((1, 4)), np.zeros((2, 1, 3)), np.float32(2))
    assert y.tolist() == [[3] * 4]
    assert state.shape == (2, 1, 3)
    y, state = predict(np.ones((1, 4)), state, np.array(0))
    assert state.max() == 2


SCORE = "import numpy as np\ndef evaluate(predict):\n    return "


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("predict(np.ones((2, 5)))", "`x` is 2x5, expected 1x4"),
        ("predict(np.ones(4))", "add the batch axis"),
        ("predict(np.zeros((0, 4)))", "is called with no samples"),
        ("predict(np.ones((1, 4)), np.ones(1))", "2 arrays for 1 input"),
        ("predict([1, 2])", "`x` is a list"),
        ("predict()", "no inputs are given"),
        ("predict({'y': np.ones((1, 4))})", "unknown input `y`"),
        ("None", "evaluate returns None"),
        ("True", "evaluate returns a bool"),
        ("'0.9'", "evaluate returns a str"),
        ("float('nan')", "evaluate is nan"),
        ("np.float32('inf')", "evaluate is inf"),
        ("np.ones(3)", "evaluate returns a ndarray"),
        ("{'accuracy': None}", "accuracy returns None"),
        ("{'loss': 1, 'rate': 2}", "returns no score among loss, rate"),
        ("{}", "returns no score among nothing"),
        ("{'accuracy': 1, 'per_class': {'cat': float('nan')}}", "per_class `cat` is nan"),
        ("{'accuracy': 1, 'per_class': 3}", "per_class is a int"),
        ("{'accuracy': 1, 'samples': 'many'}", "samples returns a str"),
        ("[][1]", "IndexError: list index out of range"),
        ("exit(1)", "the code ends the program"),
    ],
)
def test_an_evaluate_that_cannot_be_used_is_refused_with_the_user_s_line(tmp_path, call, line):
    code = write(tmp_path / "score.py", SCORE + call)
    task = load(write_onnx(tmp_path / "net.onnx"), evaluate=f"{code}:evaluate")
    with pytest.raises(BadInput) as caught:
        judge_original(task.model, task)
    assert line in str(caught.value)
    assert f"{code}:" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("result", "score"),
    [
        (1, Score(value=1.0)),
        (np.float32(0.5), Score(value=0.5)),
        (torch.tensor(0.5), Score(value=0.5)),
        (np.array(0.5), Score(value=0.5)),
        ({"loss": 3, "score": 0.5}, Score(value=0.5)),
        ({"mAP": 0.5, "samples": 7}, Score(value=0.5, samples=7)),
        ({"pitch error": -3.0}, Score(value=-3.0)),
        ({"acc": 1, "per_class": {"cat": 1, 3: 0.5}}, Score(value=1.0, classes={"cat": 1.0, "3": 0.5})),
        ({"acc": 1, "per_class": np.array([1, 0.5])}, Score(value=1.0, classes={"0": 1.0, "1": 0.5})),
    ],
)
def test_a_score_is_read_from_a_number_or_from_a_dict(result, score):
    assert read_score(result, "evaluate()") == score
