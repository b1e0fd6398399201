import pytest

from edgekit.compress.half import Half
from edgekit.compress.quantize import Quantize
from edgekit.plan.candidates import Candidate, Offer, candidates, given_recipe, precision_of, recipe_name
from edgekit.plan.recipe import Recipe, recipe_from_data
from edgekit.target import load_target

AS_IT_IS = Candidate(name="float32", recipe=Recipe())
ALL = frozenset({"static", "dynamic", "weight-only", "qat"})


def offered(target="rpi4", runtime="onnxruntime", **offer):
    usual = {"unchanged": AS_IT_IS, "quantized": False, "methods": frozenset(), "prunable": False}
    return candidates(load_target(target), runtime, Offer(**{**usual, **offer}))


def names(*where, **offer):
    return [one.name for one in offered(*where, **offer)]


def test_each_narrower_network_is_tried_in_float_before_int8():
    assert names(methods=ALL, prunable=True) == [
        "float32",
        "int8",
        "int8, accuracy-controlled",
        "int8, qat",
        "pruned to 70%",
        "pruned to 70% + int8",
        "pruned to 50%",
        "pruned to 50% + int8",
        "pruned to 35%",
        "pruned to 35% + int8",
    ]


def test_what_the_task_does_not_allow_is_not_tried():
    assert names(methods=frozenset({"dynamic"})) == ["float32", "int8"]
    assert names(prunable=True)[1:] == ["pruned to 70%", "pruned to 50%", "pruned to 35%"]
    assert names() == ["float32"]
    assert names(methods=frozenset({"qat"})) == ["float32", "int8, qat"]


@pytest.mark.parametrize("offer", [{"quantized": True}, {"precision": "float16", "methods": ALL}])
def test_a_network_in_another_precision_is_only_converted(offer):
    given = Candidate(name="as given", recipe=Recipe())
    assert offered(unchanged=given, prunable=True, **offer) == [given]


def test_float16_is_tried_where_the_runtime_computes_faster_in_it_on_the_board():
    assert "float16" in names("jetson-orin-nano", "tensorrt", methods=ALL)
    assert "float16" not in names("rpi4", "onnxruntime", methods=ALL)
    assert "float16" not in names("rpi4", "openvino", methods=ALL), "nothing is known of it there"


def test_what_mends_the_quality_says_so():
    assert {one.name: one.mends for one in offered(methods=ALL)} == {
        "float32": None,
        "int8": None,
        "int8, accuracy-controlled": "drop",
        "int8, qat": "drop",
    }


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ({"step": "quantize"}, "int8"),
        ({"step": "quantize", "method": "static"}, "int8"),
        ({"step": "quantize", "method": "dynamic"}, "int8, dynamic"),
        ({"step": "quantize", "method": "weight-only", "weights": "int4"}, "int4 weights"),
        ({"step": "quantize", "method": "static", "activations": "int16"}, "int8 x int16"),
        ({"step": "half"}, "float16"),
        ({"step": "half", "precision": "bfloat16"}, "bfloat16"),
        ({"step": "distill"}, "distilled"),
        ({"step": "prune", "macs": 0.35}, "pruned to 35%"),
    ],
)
def test_a_recipe_is_called_what_people_call_it(step, name):
    assert recipe_name(recipe_from_data({"steps": [step]}, "here")) == name


def test_a_recipe_without_steps_is_the_network_as_it_is_by_its_own_name():
    own = Candidate(name="float16", recipe=Recipe())
    assert given_recipe(Recipe(threads=2), own).name == "float16"
    assert given_recipe(Recipe(steps=(Half(),)), AS_IT_IS).name == "float16"


@pytest.mark.parametrize(
    ("step", "precision"),
    [
        (Quantize(method="auto", route="nncf"), "int8"),
        (Quantize(method="auto", route="nncf-weight-only"), "float32"),
        (Half(precision="bfloat16"), "bfloat16"),
        (Half(), "float16"),
        (None, "float32"),
    ],
)
def test_weights_alone_in_integers_leave_the_layers_computing_in_float(step, precision):
    recipe = Recipe(steps=(step,) if step else ())
    assert precision_of(recipe.data(), "openvino") == precision
