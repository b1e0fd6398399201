"""The documents tell the truth: names, options and parameters in them exist."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from edgekit.artifact import RUNTIMES
from edgekit.cli.main import COMMANDS, edgekit
from edgekit.compress.quantization.ways import ways_of
from edgekit.compress.quantize import Quantize
from edgekit.plan.recipe import STEPS, recipe_from_data
from edgekit.target_file import names
from edgekit.task.taskfile import FUNCTIONS

ROOT = Path(__file__).parent.parent
GUIDE, README = ((ROOT / name).read_text() for name in ("docs/guide.md", "README.md"))
RECIPES, QUANTIZATION = (
    GUIDE.partition(f"\n{title}\n")[2].partition("\n## ")[0] for title in ("### Recipes", "## Quantization")
)


def recipe_of(quantize):
    """The recipe that `--quantize` gives."""
    from edgekit.cli.options import _recipe_from

    return _recipe_from({"recipe": None, "quantize": quantize})


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "completion"])
def test_every_command_is_in_the_guide_and_in_the_readme(command):
    assert f"edgekit {command}" in GUIDE
    assert f"edgekit {command}" in README


def test_every_option_in_the_documents_is_one_of_a_command_or_of_the_bundle_s_program():
    import click

    context = click.Context(edgekit)
    known = {"--help", "--debug", "--version"}
    for name in COMMANDS:
        command = edgekit.get_command(context, name)
        nested = list(getattr(command, "commands", {}).values())
        known |= {option for one in (command, *nested) for param in one.params for option in param.opts}
    known |= {"--check", "--bench", "--input", "--serve", "--max-body"}  # of run.py
    known |= {"--unix-socket", "--data-binary"}  # of curl
    known |= {"--constraint"}  # of pip
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDE + README))
    assert found - known == set()


def test_every_step_and_every_parameter_is_in_the_guide():
    for step in STEPS:
        section = QUANTIZATION if step is Quantize else RECIPES
        for name in step.model_fields:
            assert name == "step" or f"`{name}`" in section or f"{name}:" in section, (
                f"{step.__name__}.{name}"
            )
        assert str(step.model_fields["step"].default) in RECIPES


def test_every_runtime_and_each_of_its_ways_to_quantize_is_in_the_guide():
    assert [name for name in RUNTIMES if f"`{name}`" not in GUIDE] == []
    ways = {way.name for runtime in RUNTIMES for way in ways_of(runtime)}
    assert {name for name in ways if f"`{name}`" not in QUANTIZATION} == set()


@pytest.mark.parametrize("name", ["method", "weights", "activations", "ranges", "bias_correction"])
def test_the_guide_lists_the_values_that_a_parameter_of_quantize_takes(name):
    (row,) = [line for line in QUANTIZATION.splitlines() if line.startswith(f"| `{name}` |")]
    values = row.split("|")[2].strip().split(", ")
    assert sorted(values) == sorted(get_args(Quantize.model_fields[name].annotation))


def test_every_way_to_quantize_in_the_documents_is_one():
    found = re.findall(r"--quantize ([a-z][\w=,.-]*)", GUIDE + README)
    assert len(found) >= 2
    for text in found:
        assert recipe_of(text).steps[0].step == "quantize"


def test_the_recipe_of_the_guide_can_be_replayed():
    text = RECIPES.partition("```yaml")[2].partition("```")[0]
    assert len(recipe_from_data(yaml.safe_load(text), "the guide").steps) == 3


def test_every_part_of_a_task_file_is_in_the_guide():
    for name in (*FUNCTIONS, "dynamic_axes", "output_names"):
        assert name in GUIDE


def test_every_file_that_a_document_links_to_is_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_target_has_a_board_that_people_can_look_up():
    assert {"rpi4", "rpi5", "rpi3", "rpi-zero2w", "jetson-nano", "jetson-orin-nano"} <= set(names("target"))
    assert {"x86-cpu", "android-mid", "android-low"} <= set(names("target"))
