"""What a candidate is said to cost where another runtime stands in for the device's own."""

from dataclasses import replace

import pytest
from networks import TinyCnn, noise, task_of

from edgekit.artifact import Artifact
from edgekit.compress.half import Half
from edgekit.errors import BadInput
from edgekit.measure import build_and_measure, refuse_unfit
from edgekit.plan.candidates import given_recipe, unchanged
from edgekit.plan.recipe import Recipe
from edgekit.progress import Progress
from edgekit.realise import converted, float_graph
from edgekit.target import load_target
from edgekit.workshop import open_shop


@pytest.fixture(scope="module")
def jetson():
    """The float network and the one in float16, for TensorRT."""
    target = load_target("jetson-orin-nano").with_runtimes(["tensorrt"])
    images = tuple((noise(1, 1, 16, 16),) for _ in range(4))
    task = replace(task_of(TinyCnn(), [images[0][0]]), calibration=images)
    shop = open_shop(task, target, Progress(quiet=True), use_cache=False)
    shop = replace(shop, baseline=float_graph(shop, Recipe()))
    shop = replace(shop, floats=converted(shop, shop.baseline, Recipe()).artifact)
    as_it_is = unchanged(shop.baseline.load())
    return [
        build_and_measure(shop, one) for one in (as_it_is, given_recipe(Recipe(steps=(Half(),)), as_it_is))
    ]


def test_the_speed_of_what_stands_in_for_tensorrt_decides_nothing(jetson):
    assert [tried.speedup_here for tried in jetson] == [None, None]
    assert "onnxruntime in TensorRT's place" in jetson[0].here.peak_memory_mb.source
    assert all(tried.cost.peak_memory_mb is None for tried in jetson)


def test_float16_is_predicted_as_float16_and_its_quality_in_float32_is_no_measurement(jetson):
    floats, halves = (tried.cost for tried in jetson)
    assert halves.latency_p50_ms.value < floats.latency_p50_ms.value
    assert (floats.drop.how, halves.drop.how) == ("measured", "predicted")
    assert "in float32 what the device computes in 16 bits" in halves.drop.source


def test_what_the_target_s_package_computes_wrongly_is_refused(tmp_path):
    made = Artifact(
        runtime="tflite",
        path=tmp_path / "model.tflite",
        inputs=("x",),
        outputs=("y",),
        options={"not_with": {"tflite-runtime": "has no int4 weights"}},
    )
    refuse_unfit(made, load_target("rpi4"))
    said = "tflite-runtime, which is installed on jetson-nano, has no int4 weights"
    with pytest.raises(BadInput, match=said):
        refuse_unfit(made, load_target("jetson-nano"))
