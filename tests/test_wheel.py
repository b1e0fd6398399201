"""The wheel: what `pip install` puts on a machine that has no checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "dist", "__pycache__")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=300)
    shutil.rmtree(source)
    (wheel,) = folder.glob("edgekit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_it_holds_the_program_its_data_and_what_goes_into_bundles(installed):
    for kind in ("targets", "profiles"):
        shipped = {path.name for path in (installed / "edgekit" / "data" / kind).iterdir()}
        assert shipped == {path.name for path in (ROOT / kind).glob("*.yaml")}
    files = ("py.typed", "report/style.css", "ondevice/run.py", "ondevice/runner/commands.py")
    assert [name for name in files if not (installed / "edgekit" / name).is_file()] == []
    assert {path.name for path in installed.iterdir() if "dist-info" not in path.name} == {"edgekit"}


def test_its_targets_are_found_without_a_checkout(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    program = (
        "import edgekit, runpy; print(edgekit.__file__); runpy.run_module('edgekit', run_name='__main__')"
    )
    command = [sys.executable, "-c", program, "targets"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == str(installed / "edgekit" / "__init__.py")
    for path in (ROOT / "targets").glob("*.yaml"):
        assert path.stem in done.stdout
