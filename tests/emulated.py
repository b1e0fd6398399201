"""Emulated boards for tests: one command in a container of its own, with packages that are unpacked once."""

from __future__ import annotations

import compileall
import contextlib
import functools
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from platformdirs import user_cache_path

from edgekit.devices.container import open_container
from edgekit.devices.device import run
from edgekit.devices.wheels import wheels_for
from edgekit.emulation.board import folder
from edgekit.emulation.engine import connect
from edgekit.emulation.image import made

DOCKER = folder()
BOARDS = {"cortex-a53": "rpi3", "cortex-a72": "rpi4", "cortex-a76": "rpi5"}


def run_in_container(
    bundle: Path, requirements: Sequence[str], arguments: Sequence[str], cpu: str = "cortex-a72"
) -> subprocess.CompletedProcess[str]:
    """Run a bundle's own `run.py` on an emulated board, with real arm64 wheels.

    Args:
        bundle: its folder.
        requirements: as pip takes them, `numpy==2.4.6`; see `requirements_of`.
        arguments: of run.py.
        cpu: what QEMU emulates.
    """
    return container(["python3", "/bundle/run.py", *arguments], requirements, {"/bundle": bundle}, cpu=cpu)


def container(
    command: Sequence[str],
    requirements: Sequence[str] = (),
    mounts: Mapping[str, Path] | None = None,
    *,
    cpu: str = "cortex-a72",
    environment: Mapping[str, str] | None = None,
    timeout: float = 280,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a container of its own.

    Args:
        command: the program and its arguments.
        requirements: packages on its PYTHONPATH.
        mounts: folders that it may read, by their place in the container; made such that its user may.
        cpu: the core; the board is the Raspberry Pi that has it.
        environment: more variables.
        timeout: seconds without a word after which it is given up.
    """
    up()
    bound, variables = dict(mounts or {}), {"OMP_NUM_THREADS": "1", **(environment or {})}
    for path in bound.values():
        path.chmod(0o755)
    if requirements:
        bound["/site"], variables["PYTHONPATH"] = site(tuple(requirements)), "/site"
    words = ["env", *(f"{name}={value}" for name, value in variables.items()), *command]
    with contextlib.closing(open_container(BOARDS[cpu], detail=print, mounts=bound)) as device:
        done = run(device, words, silence=timeout)
    return subprocess.CompletedProcess(words, done.status, done.stdout.decode(), done.stderr)


def requirements_of(bundle: Path) -> list[str]:
    """What the bundle's requirements.txt names."""
    lines = (bundle / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@functools.cache
def up() -> None:
    """Start the Docker engine and the emulator where they do not run."""
    subprocess.run([DOCKER / "up"], check=True, timeout=120)


@functools.cache
def image(packages: tuple[str, ...] = ()) -> str:
    """The name of the arm64 image, which is made where it is not there; with an engine that runs."""
    up()
    with contextlib.closing(connect()) as client:
        return made(client, print, packages)


@functools.cache
def site(requirements: tuple[str, ...]) -> Path:
    """A folder with these packages and what they need, as arm64 wheels hold them; in the user's cache.

    Unpacked and compiled once for all tests: under emulation either takes its time.
    """
    key = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:16]
    target = user_cache_path("edgekit") / "arm64" / f"{key}-{sys.version_info[0]}.{sys.version_info[1]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    pins = dict(requirement.split("==") for requirement in requirements)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = Path(scratch) / "site"
        for wheel in wheels_for(pins, arch="aarch64", python="3.11", glibc="2.36").values():
            _install(wheel, unpacked)
        compileall.compile_dir(unpacked, quiet=2)  # of use where this Python is a 3.11 too
        try:
            unpacked.rename(target)
        except OSError:  # another process was faster
            assert target.is_dir()
    return target


def _install(wheel: Path, target: Path) -> None:
    """Unpack a wheel as an installer does, less scripts and byte code."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    for data in target.glob("*.data"):
        for part in ("purelib", "platlib"):
            if (data / part).is_dir():
                shutil.copytree(data / part, target, dirs_exist_ok=True)
        shutil.rmtree(data)
