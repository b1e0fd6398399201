import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edgekit.cost import Cost, Figure, judge
from edgekit.result import Parity, Quality, Rival, Tried, as_json


def test_infinite_figures_anywhere_become_null_in_one_pass():
    endless = Figure(value=math.inf, how="predicted", source="model", low=1.0, high=math.inf)
    cost = Cost(latency_p90_ms=endless)
    tried = Tried(name="float32", recipe={}, cost=cost, verdicts=tuple(judge(cost, cost)))
    data = as_json({"tried": (tried,), "path": Path("dist/x"), "nan": math.nan})
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["tried"][0]["cost"]["latency_p90_ms"] == {
        "value": None,
        "how": "predicted",
        "source": "model",
        "low": 1.0,
        "high": None,
    }
    assert data["tried"][0]["verdicts"][0]["limit"]["value"] is None
    assert data["path"] == "dist/x"
    assert data["nan"] is None


def test_a_record_becomes_an_object_with_its_fields_by_name():
    parity = Parity(stage="torch -> onnx", snr_db=math.inf, max_abs=0.0, top1=None, floor_db=60.0)
    assert as_json(parity) == {
        "stage": "torch -> onnx",
        "snr_db": None,
        "max_abs": 0.0,
        "top1": None,
        "floor_db": 60.0,
    }
    assert as_json(Quality(kind="none", score=None, drop=None))["kind"] == "none"


def test_a_runtime_that_did_not_come_so_far_has_no_figures():
    assert as_json(Rival(runtime="tflite", chosen=False, reason="not tried: no")) == {
        "runtime": "tflite",
        "chosen": False,
        "reason": "not tried: no",
        "threads": None,
        "cost": {},
        "here": {},
        "parity": None,
        "ratio": None,
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
        max_leaves=20,
    )
)
def test_any_plain_data_can_be_written_as_strict_json(value):
    json.dumps(as_json(value), allow_nan=False)
