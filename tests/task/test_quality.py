"""What a graph lost against the original, by whatever there is to tell by."""

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from modelfiles import load, save_graph, write, write_onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import BadInput
from edgekit.graph.run import opened
from edgekit.task.quality import judge_original, measure_quality


def calibrated(folder, **options):
    np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((64, 4)))
    return load(write_onnx(folder / "net.onnx", **options), calibration=str(folder / "data.npz"))


def weights(seed=0):
    return np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)


def changed(model, weight, name="w"):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(weight, np.float32), name))
    return copy


def test_a_classifier_without_an_evaluate_is_judged_by_agreement(tmp_path):
    task = calibrated(tmp_path, weight=weights())
    original = judge_original(task.model, task)
    assert (original.quality.kind, original.quality.score, original.quality.drop) == ("top-1 agreement", 1, 0)
    assert original.quality.samples == 64
    assert measure_quality(opened(task.model), task, original) == original.quality
    swapped = measure_quality(opened(changed(task.model, weights()[:, [1, 2, 0]])), task, original)
    assert (swapped.score, swapped.drop) == (0, 1)
    noisy = measure_quality(opened(changed(task.model, weights() + 0.3 * weights(1))), task, original)
    assert 0 < noisy.drop < 0.5
    assert noisy.score == 1 - noisy.drop


def test_nan_agrees_with_nothing(tmp_path):
    task = calibrated(tmp_path, weight=weights())
    original = judge_original(task.model, task)
    assert measure_quality(opened(changed(task.model, np.full((4, 3), np.nan))), task, original).drop == 1


def two_outputs(folder):
    """A large output `a = 1000 x` and a small one `b = x / 1000`; no class scores."""
    rows = [("x", (1, 4))], [("a", (1, 4)), ("b", (1, 4))]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in row] for row in rows
    )
    nodes = [helper.make_node("Mul", ["x", name], [name[-1]]) for name in ("by_a", "by_b")]
    tensors = [numpy_helper.from_array(np.float32(by), n) for by, n in ((1000, "by_a"), (0.001, "by_b"))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    save_graph(graph, folder / "two.onnx")
    np.savez(folder / "data.npz", x=np.ones((8, 4)))
    return load(folder / "two.onnx", calibration=str(folder / "data.npz"))


def test_other_networks_are_judged_by_the_output_that_lost_most(tmp_path):
    task = two_outputs(tmp_path)
    original = judge_original(task.model, task)
    assert (original.quality.kind, original.quality.score) == ("signal-to-noise", math.inf)
    assert original.quality.drop == 0
    quality = measure_quality(opened(changed(task.model, 0.0011, "by_b")), task, original)
    assert quality.score == pytest.approx(20, abs=0.1), "the small output is a tenth off: 20 dB"
    assert quality.drop == pytest.approx(0.01, rel=0.01)
    assert measure_quality(opened(changed(task.model, np.nan, "by_b")), task, original).drop == math.inf
    assert measure_quality(opened(task.model), task, original).drop == 0


def test_an_output_of_another_shape_keeps_nothing(tmp_path):
    task = two_outputs(tmp_path)
    original = judge_original(task.model, task)
    quality = measure_quality(opened(changed(task.model, [[0.001]] * 2, "by_b")), task, original)
    assert (quality.score, quality.drop) == (0, 1)


def test_without_any_data_there_is_no_quality(tmp_path):
    task = load(write_onnx(tmp_path / "net.onnx"))
    original = judge_original(task.model, task)
    assert (original.quality.kind, original.quality.score, original.quality.drop) == ("none", None, None)
    assert measure_quality(opened(changed(task.model, weights())), task, original) == original.quality


def scored(folder, body):
    code = write(folder / "score.py", "import numpy as np\ndef evaluate(predict):\n" + body)
    return load(write_onnx(folder / "net.onnx"), evaluate=f"{code}:evaluate")


ONES = "    y = float(predict(np.ones((1, 4)))[0, 0])\n"  # 4 by the original


@pytest.mark.parametrize(
    ("returned", "score", "drop"),
    [("y / 5", 0.4, 0.4), ("y * 20", 40.0, 0.5), ("-8 / y", -4.0, 1.0), ("y / 4", 0.5, 0.5)],
)
def test_points_are_lost_of_shares_and_a_share_of_every_other_score(tmp_path, returned, score, drop):
    task = scored(tmp_path, ONES + f"    return {returned}\n")
    original = judge_original(task.model, task)
    assert (original.quality.kind, original.quality.drop) == ("accuracy", 0)
    quality = measure_quality(opened(changed(task.model, np.full((4, 3), 0.5))), task, original)
    assert quality.score == pytest.approx(score)
    assert quality.drop == pytest.approx(drop)


def test_the_class_that_lost_most_is_named(tmp_path):
    body = ONES + "    return {'acc': y / 4, 'per_class': {'cat': 1, 'dog': y / 4}, 'samples': 9}\n"
    task = scored(tmp_path, body)
    original = judge_original(task.model, task)
    assert (original.quality.class_drop, original.quality.worst_class) == (0, None)
    quality = measure_quality(opened(changed(task.model, np.full((4, 3), 0.5))), task, original)
    assert (quality.class_drop, quality.worst_class, quality.samples) == (0.5, "dog", 9)


def test_an_original_that_gives_nan_on_the_calibration_data_is_refused(tmp_path):
    task = calibrated(tmp_path, weight=weights())
    broken = replace(task, calibration=(*task.calibration[:3], (np.full((1, 4), np.nan, np.float32),)))
    with pytest.raises(BadInput, match="gives NaN on calibration call 3"):
        judge_original(task.model, broken)


def test_to_agree_on_the_only_class_there_is_proves_nothing(tmp_path):
    task = calibrated(tmp_path, weight=weights())
    always = replace(task, calibration=(task.calibration[0],) * 8)
    assert judge_original(task.model, always).quality.kind == "signal-to-noise"
