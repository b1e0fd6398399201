"""timm and torchvision cannot be installed here: what is real is the line that says so."""

import importlib.util

import pytest
from modelfiles import refusal, write


@pytest.mark.parametrize("zoo", ["timm", "torchvision"])
def test_a_zoo_that_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path, zoo):
    assert importlib.util.find_spec(zoo) is None, f"{zoo} is installed: test loading from it"
    expected = f"{zoo} is not installed; `pip install {zoo}`"
    assert refusal(f"{zoo}/resnet18", status=4) == expected
    task = write(tmp_path / "task.py", f"def model():\n    return '{zoo}/resnet18'\n")
    assert refusal(task, status=4) == expected
