"""The documents tell the truth: names, options and parameters in them exist."""

import re
from pathlib import Path

import pytest
import yaml

from edgekit.cli.main import COMMANDS, edgekit
from edgekit.plan.recipe import STEPS, recipe_from_data
from edgekit.target_file import names
from edgekit.task.taskfile import FUNCTIONS

ROOT = Path(__file__).parent.parent
GUIDE, README = ((ROOT / name).read_text() for name in ("docs/guide.md", "README.md"))


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
    known |= {"--check", "--bench", "--input"}  # of run.py
    known |= {"--constraint"}  # of pip
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDE + README))
    assert found - known == set()


def test_every_step_and_every_parameter_is_in_the_guide():
    section = GUIDE.partition("### Recipes")[2].partition("\n## ")[0]
    for step in STEPS:
        for name in step.model_fields:
            assert name in section, f"{step.__name__}.{name}"


def test_the_recipe_of_the_guide_can_be_replayed():
    text = GUIDE.partition("### Recipes")[2].partition("```yaml")[2].partition("```")[0]
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
