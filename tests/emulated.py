"""An arm64 board in a container: its instruction set and its userland, not its speed."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from platformdirs import user_cache_path

DOCKER = Path(__file__).parents[1] / "docker"
CPUINFO = {"cortex-a53": "rpi3", "cortex-a72": "rpi4", "cortex-a76": "rpi5"}
EMULATOR_MB = 150  # what QEMU takes itself: its own binary and the translated code
PLATFORMS = [
    "manylinux2014_aarch64",
    *(f"manylinux_2_{glibc}_aarch64" for glibc in range(17, 37)),
]  # Debian 12: 2.36


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
    memory_mb: int = 1024,
    environment: Mapping[str, str] | None = None,
    timeout: float = 280,
) -> subprocess.CompletedProcess[str]:
    """Run a command there: no network, nothing to write to but /tmp, no capabilities.

    Args:
        command: the program and its arguments.
        requirements: packages on its PYTHONPATH.
        mounts: folders that it may read, by their place in the container.
        cpu: what QEMU emulates; /proc/cpuinfo is that of a board with this core.
        memory_mb: of the board.
        environment: more variables.
        timeout: seconds after which the container is removed and TimeoutExpired raised.
    """
    name = f"edgekit-{uuid.uuid4().hex[:12]}"
    limit = f"{memory_mb + EMULATOR_MB}m"
    variables = {"QEMU_CPU": cpu, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(environment or {})}
    bound = {"/proc/cpuinfo": DOCKER / f"cpuinfo-{CPUINFO[cpu]}.txt", **(mounts or {})}
    if requirements:
        bound["/site"], variables["PYTHONPATH"] = site(tuple(requirements)), "/site"
    arguments = [
        *["docker", "run", "--name", name, "--rm", "--init", "--platform", "linux/arm64"],
        *["--network", "none", "--read-only", "--tmpfs", "/tmp:size=64m", "--cap-drop", "ALL"],
        *["--security-opt", "no-new-privileges", "--pids-limit", "128"],
        *["--user", f"{os.getuid()}:{os.getgid()}", "--memory", limit, "--memory-swap", limit],
        *[word for pair in variables.items() for word in ("--env", "=".join(pair))],
        *[word for place, path in bound.items() for word in ("--volume", f"{path.resolve()}:{place}:ro")],
        *[image(), *command],
    ]
    try:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=timeout, check=False)
    finally:
        # The client's end does not end the container, and a crash under QEMU can ignore SIGTERM.
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def requirements_of(bundle: Path) -> list[str]:
    """What the bundle's requirements.txt names."""
    lines = (bundle / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@functools.cache
def image() -> str:
    """The name of the arm64 image, which is made where it is not there; with an engine that runs."""
    subprocess.run([DOCKER / "up"], check=True, timeout=120)
    programs = b"".join(path.read_bytes() for path in sorted(DOCKER.glob("*.py")))
    tag = f"edgekit/arm64:{hashlib.sha256(programs).hexdigest()[:12]}"
    if subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False).returncode:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "image.tar"
            make = [sys.executable, DOCKER / "mkimage.py", "arm64", "--tag", tag, "-o", made]
            subprocess.run(make, check=True, timeout=300)
            subprocess.run(["docker", "load", "-i", made], check=True, capture_output=True, timeout=120)
    return tag


@functools.cache
def site(requirements: tuple[str, ...]) -> Path:
    """A folder with these packages and what they need, as arm64 wheels hold them; in the user's cache."""
    key = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:16]
    folder = user_cache_path("edgekit") / "arm64" / key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheels, unpacked = Path(scratch) / "wheels", Path(scratch) / "site"
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels]
        fetch += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.11"]
        fetch += [word for name in PLATFORMS for word in ("--platform", name)]
        subprocess.run([*fetch, *requirements], check=True, capture_output=True, timeout=600)
        for wheel in sorted(wheels.glob("*.whl")):
            _install(wheel, unpacked)
        try:
            unpacked.rename(folder)
        except OSError:  # another process was faster
            assert folder.is_dir()
    return folder


def _install(wheel: Path, target: Path) -> None:
    """Unpack a wheel as an installer does, less scripts and byte code."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    for data in target.glob("*.data"):
        for part in ("purelib", "platlib"):
            if (data / part).is_dir():
                shutil.copytree(data / part, target, dirs_exist_ok=True)
        shutil.rmtree(data)
