"""What several rooms' tests share."""

import shutil
import subprocess
import venv

import pytest
import torch
from bundles import packed, voice_calls, voice_network
from networks import TinyCnn, trained_task

from edgekit.runtimes.float_graph import float_graph


@pytest.fixture(scope="session")
def made_bundles(tmp_path_factory):
    """Bundles that no test may change."""
    root = tmp_path_factory.mktemp("made")
    packed(root / "tiny")
    packed(root / "voice", voice_network(), voice_calls(), name="voice", target="x86-cpu")
    return root


@pytest.fixture
def bundle(made_bundles, tmp_path):
    """A bundle of one's own, away from where it was made."""
    return shutil.copytree(made_bundles / "tiny", tmp_path / "elsewhere" / "tiny")


@pytest.fixture
def voice_bundle(made_bundles, tmp_path):
    """A bundle with several inputs and outputs, state and an integer scalar; this machine is its target."""
    return shutil.copytree(made_bundles / "voice", tmp_path / "elsewhere" / "voice")


@pytest.fixture(scope="session")
def device_python(made_bundles, tmp_path_factory):
    """The Python of a clean environment that holds what the bundle's requirements.txt names, no more."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    requirements = made_bundles / "tiny" / "requirements.txt"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
    subprocess.run(install, check=True, timeout=600)
    return str(python)


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """The Python of a clean environment with no package at all."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="session")
def tiny_cnn():
    """A small residual network that knows scikit-learn's digits, as a task with calibration and training."""
    torch.manual_seed(0)
    return trained_task(TinyCnn())


@pytest.fixture(scope="session")
def tiny_graph(tiny_cnn):
    """The float graph of `tiny_cnn`; no test may change it."""
    return float_graph(tiny_cnn.model, tiny_cnn, opset=20, ir_version=10)[0]


@pytest.fixture(autouse=True)
def short_comparisons(monkeypatch):
    """No test asserts a speed, so the routes are timed for the fewest rounds only."""
    monkeypatch.setattr("edgekit.alternate.EACH_S", 0.1)
