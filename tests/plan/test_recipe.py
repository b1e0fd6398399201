import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compress.distill import Distill
from edgekit.compress.half import Half
from edgekit.compress.prune import Prune
from edgekit.compress.quantize import Quantize
from edgekit.errors import BadInput
from edgekit.plan.recipe import Recipe, load_recipe, recipe_from_data, recipe_key

WHOLE = Recipe(
    steps=(Prune(macs=0.5), Distill(epochs=3), Quantize(route="nncf", ranges="percentile")),
    runtime="openvino",
    threads=2,
)
CHOSEN = {"runtime": "tflite", "threads": 4}


@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps], ids=["yaml", "json"])
def test_a_recipe_is_read_back_as_it_was_written(tmp_path, write):
    path = tmp_path / "recipe.yaml"
    path.write_text(write(WHOLE.data()))
    assert load_recipe(path) == WHOLE


def test_the_key_of_a_recipe_holds_the_defaults_too():
    assert recipe_key((Quantize(),)) == recipe_key((Quantize(samples=Quantize().samples),))
    assert recipe_key((Quantize(),)) != recipe_key((Quantize(samples=7),))


def test_a_pinned_recipe_holds_what_was_chosen_and_keeps_what_the_user_said():
    asked = Recipe(steps=(Prune(macs=0.5), Distill(), Quantize()))
    pinned = asked.pinned(route="nncf", round_to=8, **CHOSEN)
    assert pinned.data() == {
        "steps": [
            {"step": "prune", "round_to": 8},
            {"step": "distill"},
            {"step": "quantize", "route": "nncf"},
        ],
        **CHOSEN,
    }
    said = Recipe(steps=(Prune(macs=0.5, round_to=4), Quantize(route="ort-static")), **CHOSEN)
    assert said.pinned(route="nncf", round_to=8, **CHOSEN) == said
    assert recipe_from_data(pinned.data(), "here") == pinned


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"steps": [{"step": "quantise"}]}, "steps.0"),
        ({"steps": [{"step": "prune", "macs": 1.5}]}, "macs"),
        ({"steps": [{"step": "prune", "mac": 0.5}]}, "mac"),
        ({"step": []}, "step"),
        ({"steps": [Quantize().model_dump(), Prune().model_dump()]}, "come before steps on the graph"),
        ({"steps": [Half().model_dump(), Quantize().model_dump()]}, "exclude one another"),
        ({"threads": 0}, "threads"),
        ({"runtime": "tensorflow"}, "runtime"),
        ({"steps": [{"step": "quantize", "rangs": "entropy"}]}, "did you mean `ranges`"),
        ({"steps": [{"step": "quantize", "group_size": 8}]}, "group_size"),
        ({"steps": [{"step": "half", "precision": "float8"}]}, "precision"),
        ([], "recipe"),
        (None, "recipe"),
    ],
)
def test_a_recipe_that_is_none_is_refused_with_the_key(data, said):
    with pytest.raises(BadInput) as refusal:
        recipe_from_data(data, "recipe.yaml")
    line = str(refusal.value)
    assert line.startswith("recipe.yaml: ")
    assert said in line
    assert len(line.splitlines()) == 1


@given(st.binary(max_size=200))
def test_any_file_gives_a_recipe_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_bytes(content)
    try:
        line = "read" if isinstance(load_recipe(path), Recipe) else ""
    except BadInput as refusal:
        line = str(refusal)
    assert line
    assert "\n" not in line


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
