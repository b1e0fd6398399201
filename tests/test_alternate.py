from dataclasses import replace

import numpy as np
import pytest
from onnx import parser

from edgekit.alternate import FEWEST_ROUNDS, LEAST_ROUNDS, _rounds, compare_artifacts
from edgekit.errors import BadInput
from edgekit.runtimes.onnxruntime import write


@pytest.fixture
def saved(tmp_path):
    """Write a model that multiplies by a matrix again and again."""

    def save(name, times):
        body = "".join(f"y{i + 1} = MatMul(y{i}, y{i})\n" for i in range(times))
        ends = f"g (float[64,64] y0) => (float[64,64] y{times})"
        text = f'<ir_version: 9, opset_import: ["": 17]> {ends} {{{body}}}'
        (tmp_path / name).mkdir()
        return write(parser.parse_model(text), tmp_path / name)

    return save


CALLS = [{"y0": np.eye(64, dtype=np.float32)}, {"y0": np.zeros((64, 64), np.float32)}]


def test_the_first_artifact_is_the_measure_of_the_others(saved):
    found = compare_artifacts({"one": saved("one", 2), "long": saved("long", 40)}, CALLS, threads=1)
    assert list(found) == ["one", "long"]
    assert found["one"].ratio_to_first == found["one"].cpu_ratio_to_first == 1
    assert found["long"].ratio_to_first > 2
    assert found["long"].cpu_ratio_to_first > 2
    assert found["long"].p50_ms > found["one"].p50_ms > 0
    assert found["long"].rounds == found["one"].rounds >= LEAST_ROUNDS


def test_fast_artifacts_get_many_rounds_and_very_slow_ones_few():
    assert _rounds(0.005, 2) > LEAST_ROUNDS
    assert _rounds(1.0, 2) == LEAST_ROUNDS
    assert _rounds(6.0, 2) == 10
    assert _rounds(100.0, 2) == FEWEST_ROUNDS


def test_a_file_that_the_runtime_refuses_is_named(saved, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    one = saved("a", 1)
    broken = replace(one, path=tmp_path / "broken.onnx")
    with pytest.raises(BadInput, match=r"^broken\.onnx: onnxruntime refuses it: "):
        compare_artifacts({"a": one, "b": broken}, CALLS, threads=1)
