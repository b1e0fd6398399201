"""timm and torchvision may be missing here: small packages of their form stand in, in a child process."""

import json
import os
import subprocess
import sys

import pytest
from modelfiles import refusal, write

NETWORK = """
import torch
def small(weights):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    if weights == "broken":
        raise OSError("no route to host")
    if weights:
        torch.nn.init.constant_(network[0].weight, 0.5)
    return network
"""
TIMM = f"""{NETWORK}
def is_model(name): return name in list_models()
def list_models(): return ["small", "offline"]
def create_model(name, pretrained):
    network = small(pretrained and ("broken" if name == "offline" else "real"))
    network.pretrained_cfg, network.default_cfg = {{"input_size": (3, 12, 12)}}, None
    return network
"""
TORCHVISION_MODELS = f"""{NETWORK}
from types import SimpleNamespace
def list_models(): return ["small", "offline"]
def get_model_weights(name):
    crop = SimpleNamespace(crop_size=[16])
    return SimpleNamespace(DEFAULT=SimpleNamespace(name=name, transforms=lambda: crop))
def get_model(name, weights):
    return small(weights and ("broken" if weights.name == "offline" else "real"))
"""
PROGRAM = """
import json, sys
from edgekit.errors import EdgekitError
from edgekit.task.load import Given, load_task
try:
    task = load_task(sys.argv[1], Given())
except EdgekitError as error:
    print(json.dumps({"status": error.exit_status, "line": str(error)}))
else:
    weight = float(task.model[0].weight.detach()[0, 0, 0, 0])
    print(json.dumps({"shape": task.inputs[0].shape, "weight": weight, "notes": task.notes}))
"""
SIDES = {"timm": 12, "torchvision": 16}


@pytest.fixture
def zoos(tmp_path):
    """A folder with both packages."""
    write(tmp_path / "zoos" / "timm.py", TIMM)
    write(tmp_path / "zoos" / "torchvision" / "__init__.py", "")
    write(tmp_path / "zoos" / "torchvision" / "models.py", TORCHVISION_MODELS)
    return tmp_path / "zoos"


def loaded(source, folder):
    """What loading a source comes to, with the packages in `folder` and none else of their names."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.parametrize("zoo", SIDES)
def test_a_network_comes_with_its_pretrained_weights_and_the_shape_that_it_is_made_for(zoos, zoo):
    side = SIDES[zoo]
    assert loaded(f"{zoo}/small", zoos) == {"shape": [1, 3, side, side], "weight": 0.5, "notes": []}


@pytest.mark.parametrize("zoo", SIDES)
def test_weights_that_cannot_be_had_are_random_always_the_same_and_said_loudly(zoos, zoo):
    found = loaded(f"{zoo}/offline", zoos)
    assert len(found["notes"]) == 1
    assert (
        "RANDOM WEIGHTS: the pretrained ones cannot be had (OSError: no route to host)" in found["notes"][0]
    )
    assert found["weight"] == loaded(f"{zoo}/offline", zoos)["weight"] != 0.5


@pytest.mark.parametrize(("zoo", "module"), [("timm", "timm"), ("torchvision", "torchvision.models")])
def test_an_unknown_name_is_refused_with_the_nearest_or_the_command_that_lists_all(zoos, zoo, module):
    assert loaded(f"{zoo}/smal", zoos) == {
        "status": 2,
        "line": f"{zoo}/smal: {zoo} has no network `smal`; did you mean `small`?",
    }
    line = loaded(f"{zoo}/zzzzzz", zoos)["line"]
    assert line.endswith(f"; `python -c 'import {module}; print({module}.list_models())'` lists 2")


@pytest.mark.parametrize("zoo", SIDES)
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch, zoo):
    monkeypatch.setitem(sys.modules, zoo, None)  # to Python a package that is not installed
    expected = f"{zoo} is not installed; `pip install {zoo}`"
    assert refusal(f"{zoo}/resnet18", status=4) == expected
    task = write(tmp_path / "task.py", f"def model():\n    return '{zoo}/resnet18'\n")
    assert refusal(task, status=4) == expected


def test_a_package_that_does_not_fit_is_somebody_elses_failure(tmp_path):
    write(tmp_path / "timm.py", "raise RuntimeError('made for another torch')")
    found = loaded("timm/small", tmp_path)
    assert found["status"] == 4
    assert "timm cannot be imported here: RuntimeError: made for another torch" in found["line"]
