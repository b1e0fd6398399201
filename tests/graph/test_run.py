import signal

import numpy as np
import pytest
from networks import noise
from onnx import parser

from edgekit.errors import BadInput
from edgekit.graph.run import observe, open_session, refuse_crash, run

MODEL = parser.parse_model(
    '<ir_version: 9, opset_import: ["": 17]> g (float[1,4] x) => (float[1,4] y) { a = Relu(x) y = Neg(a) }'
)


@pytest.mark.parametrize("optimise", [True, False])
def test_a_model_runs_with_the_optimiser_on_and_off(optimise):
    (output,) = run(open_session(MODEL, optimise=optimise), {"x": noise(1, 4)})
    assert np.array_equal(output, -np.maximum(noise(1, 4), 0))


def test_intermediate_values_are_seen_by_name():
    values = observe(MODEL, {"x": noise(1, 4)})
    assert list(values) == ["a", "y"]
    assert np.array_equal(values["a"], np.maximum(noise(1, 4), 0))
    assert list(observe(MODEL, {"x": noise(1, 4)}, ["y"])) == ["y"]


def test_what_the_runtime_refuses_is_one_line():
    broken = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 17, "own": 1]> g (float[1] x) => (float[1] y) '
        "{ y = own.Magic(x) }"
    )
    with pytest.raises(BadInput, match=r"^the model: onnxruntime refuses it: .*Magic"):
        open_session(broken)


@pytest.mark.parametrize("feeds", [{"x": noise(1, 5)}, {"z": noise(1, 4)}, {}])
def test_inputs_that_do_not_fit_are_one_line(feeds):
    with pytest.raises(BadInput, match=r"^the model, at these inputs: onnxruntime refuses it: "):
        run(open_session(MODEL), feeds)


def test_a_runtime_that_dies_is_a_refusal_and_one_that_complains_is_none(monkeypatch, tmp_path):
    refuse_crash(MODEL)
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\nkill -{signal.SIGSEGV.value} $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(dying))
    with pytest.raises(BadInput, match=r"^the model: onnxruntime dies of it \(SIGSEGV\)$"):
        refuse_crash(MODEL)
