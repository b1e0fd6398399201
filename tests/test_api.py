"""`edgekit.compress(...)`: the same steps as a recipe's, called from Python."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import TinyCnn, digits
from torch import nn

import edgekit
from edgekit.compress import (
    Depth,
    Distill,
    Factorize,
    Finetune,
    Fuse,
    Half,
    Prune,
    Quantize,
    Sparsify,
    load_network,
)
from edgekit.errors import BadInput
from edgekit.plan.recipe import STEPS
from edgekit.result import as_json

ROOT = Path(edgekit.__file__).parent.parent
IMAGES, LABELS = digits()


@pytest.fixture
def task(tiny_cnn):
    return tiny_cnn


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.getbasetemp() / "api-cache"))


def accuracy_of(predict):
    return float((predict(IMAGES[:400]).argmax(1) == LABELS[:400]).mean())


@pytest.fixture(scope="module")
def pruned(tiny_cnn):
    """Pruned, distilled and quantized for onnxruntime."""
    steps = [Prune(ratio=0.4), Distill(epochs=4), Quantize(route="ort-static")]
    return edgekit.compress(tiny_cnn.model, steps, tiny_cnn)


def test_a_network_is_pruned_distilled_and_quantized_in_one_call(pruned, task):
    assert [report.step for report in pruned.reports] == ["prune", "distill"]
    assert pruned.reports[0].macs[1] <= 0.6 * pruned.reports[0].macs[0]
    assert any(route.chosen for route in pruned.routes)
    assert pruned.artifact.runtime == "onnxruntime"
    assert pruned.quality.kind == "top-1 agreement"
    assert accuracy_of(pruned.predict) >= 0.8
    assert sum(p.numel() for p in pruned.network.parameters()) == pruned.reports[-1].params[1]


def test_the_reports_are_data_and_a_table(pruned):
    data = json.loads(json.dumps(as_json(pruned.reports)))
    assert data[0]["changes"][0]["layer"] in pruned.table()
    assert "Routes of quantize" in pruned.table()
    assert all(len(line) <= 70 for line in pruned.table(width=70).splitlines())


def test_the_network_is_saved_and_comes_back_in_the_users_own_class(pruned, tmp_path):
    pruned.save(tmp_path / "net")
    loaded, images = load_network(tmp_path / "net", TinyCnn()), torch.from_numpy(IMAGES[:8])
    assert torch.equal(loaded(images), pruned.network(images))


def test_the_module_that_is_given_stays_as_it_is(task):
    network = copy.deepcopy(task.model).train()
    before = copy.deepcopy(network.state_dict())
    edgekit.compress(network, [Factorize(gain="size")], example=IMAGES[:1], calibration=IMAGES[400:432])
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_data_is_given_by_keywords_and_the_artifact_lies_where_it_is_asked(task, tmp_path):
    images, labels = torch.from_numpy(IMAGES[400:]).split(64), torch.from_numpy(LABELS[400:]).split(64)
    for _ in range(2):  # an artifact that lies there is replaced
        found = edgekit.compress(
            task.model,
            [Prune(macs=0.6), Finetune(epochs=1)],
            example=torch.from_numpy(IMAGES[:1]),
            calibration=[(image[None],) for image in IMAGES[400:432]],
            training=lambda: list(zip(images, labels, strict=True)),
            evaluate=accuracy_of,
            runtime="openvino",
            output=tmp_path / "out",
        )
    assert found.artifact.path.parent == tmp_path / "out"
    assert found.quality.kind == "accuracy"
    assert found.quality.score == pytest.approx(accuracy_of(found.predict), abs=0.01)
    images = torch.from_numpy(IMAGES[:50])
    assert np.allclose(found.predict(images), found.network(images).detach(), atol=1e-3)
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds something else"):
        edgekit.compress(task.model, [], example=IMAGES[:1], output=tmp_path / "out")


def test_no_step_gives_the_network_itself(task):
    found = edgekit.compress(task.model, (), example=IMAGES[:1])
    assert found.reports == ()
    assert found.table() == ""
    images = torch.from_numpy(IMAGES[:8])
    assert torch.equal(found.network(images), task.model(images))
    assert np.allclose(found.predict(images), task.model(images).detach(), atol=1e-4)


TASK = """
import torch
from networks import TinyCnn, digits

images, labels = digits()

def model():
    torch.manual_seed(0)
    return TinyCnn()

def example_inputs():
    return torch.from_numpy(images[:1])

def training_data():
    return list(zip(torch.from_numpy(images[400:720]).split(64), torch.from_numpy(labels[400:720]).split(64)))

def evaluate(predict):
    return float((predict(images[:200]).argmax(1) == labels[:200]).mean())
"""


def test_a_task_file_is_enough_and_what_was_trained_is_not_trained_twice(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    steps = [Prune(macs=0.6), Finetune(epochs=2)]
    first = edgekit.compress(tmp_path / "task.py", steps)
    start = first.reports[-1].seconds
    again = edgekit.compress(None, steps, tmp_path / "task.py")
    assert again.reports == first.reports
    assert again.reports[-1].seconds == start  # read, not measured anew
    other = edgekit.compress(None, steps, str(tmp_path / "task.py"), runtime="openvino")
    images = torch.from_numpy(IMAGES[:8])
    for found in (again, other):
        assert torch.equal(found.network(images), first.network(images))
    assert other.quality.kind == "accuracy"


def test_a_module_is_judged_on_the_data_of_a_task_file(task, tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    found = edgekit.compress(task.model, [], tmp_path / "task.py")
    assert found.quality.score > 0.8  # that of the trained module, not of the file's own


def test_a_graph_step_on_an_onnx_file(tiny_graph, tmp_path):
    onnx.save(tiny_graph, tmp_path / "net.onnx")
    found = edgekit.compress(tmp_path / "net.onnx", [Half()], runtime="openvino")
    assert found.network is None
    assert found.predict(IMAGES[:3]).shape == (3, 10)
    with pytest.raises(BadInput, match="an ONNX file is a network in a file already"):
        found.save(tmp_path / "net")


NEEDS = {"depth": {"blocks": 1}}


@pytest.mark.parametrize("step", [step for step in STEPS if step.level == "network"])
def test_a_network_step_on_an_onnx_file_is_refused_in_one_line(step, tiny_graph, tmp_path):
    onnx.save(tiny_graph, tmp_path / "net.onnx")
    steps = [step(**NEEDS.get(step.model_fields["step"].default, {}))]
    with pytest.raises(BadInput, match=r"^net: \w+ changes a torch network, and the model is an ONNX file"):
        edgekit.compress(tmp_path / "net.onnx", steps, example=IMAGES[:1], calibration=IMAGES[:8])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((nn.ReLU(), [Quantize(), Prune()]), "come before steps on the graph"),
        ((nn.ReLU(), [Half(), Quantize()]), "exclude one another"),
        ((nn.ReLU(), ["prune"]), r"edgekit\.compress: `steps\.0"),
        ((nn.ReLU(), [Prune]), r"edgekit\.compress: `steps\.0"),
        ((3, []), "the model is a int"),
        ((None, []), "there is no model"),
        (("none.onnx", []), r"none\.onnx: no such file"),
        ((nn.ReLU(), [], "none.py"), r"none\.py: no such file"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(arguments, said):
    with pytest.raises(BadInput, match=said) as refusal:
        edgekit.compress(*arguments, example=IMAGES[:1])
    assert len(str(refusal.value).splitlines()) == 1


def test_data_is_given_once(task):
    with pytest.raises(BadInput, match="`example` is given beside a whole task"):
        edgekit.compress(task.model, [], task, example=IMAGES[:1])


def test_another_network_than_the_tasks_must_give_what_it_gives(task):
    small = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
    with pytest.raises(BadInput, match="the model gives"):
        edgekit.compress(small, [], task)
    other = edgekit.compress(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), [], task)
    assert other.predict(IMAGES[:3]).shape == (3, 10)


def test_a_runtime_that_the_target_does_not_have_is_refused(task):
    with pytest.raises(BadInput, match="is not one of rpi4's"):
        edgekit.compress(task.model, [], task, target="rpi4", runtime="torch")


def test_what_user_data_raises_names_the_argument(task):
    def broken():
        yield IMAGES[:1]
        raise RuntimeError("the disk is gone")

    with pytest.raises(BadInput, match="the disk is gone"):
        edgekit.compress(task.model, [], example=IMAGES[:1], calibration=broken)
    with pytest.raises(BadInput, match=r"edgekit\.compress in calibration\(\)"):
        edgekit.compress(task.model, [], example=IMAGES[:1], calibration=[IMAGES[:1, :, :3]])


def python(code, folder):
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=where, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "imports",
    [
        "import edgekit",
        "import edgekit.compress.prune",
    ],
)
def test_the_package_can_be_called_however_it_was_imported(imports, tmp_path):
    code = f"{imports}\ntry:\n    edgekit.compress(3, [])\nexcept edgekit.errors.BadInput as e:\n    print(e)"
    assert python(code, tmp_path).startswith("edgekit.compress: the model is a int")


def test_importing_edgekit_or_a_step_s_name_imports_nothing_heavy(tmp_path):
    code = (
        "import edgekit, sys, edgekit.compress\n"
        "print(sorted({'numpy', 'torch', 'onnx', 'pydantic', 'rich'} & set(sys.modules)))\n"
        "edgekit.compress.Prune\n"
        "print(sorted({'torch', 'nncf', 'openvino'} & set(sys.modules)))\n"
    )
    assert python(code, tmp_path).splitlines() == ["[]", "[]"]


def test_every_step_of_a_recipe_can_be_imported_from_the_package():
    assert {Depth, Distill, Factorize, Finetune, Fuse, Half, Prune, Quantize, Sparsify} == set(STEPS)
    assert {step.__name__ for step in STEPS} <= set(edgekit.compress.__all__)
    assert not hasattr(edgekit.compress, "Merge")
