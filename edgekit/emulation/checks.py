"""What edgekit needs of this machine, looked at one by one; every failure with the command that mends it."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from edgekit.emulation.board import cache_folder
from edgekit.emulation.engine import connect, qemu_version, registered, require_emulation
from edgekit.errors import EdgekitError, OutsideFailure

State = Literal["ok", "note", "missing"]
NEEDED_GB = 2.0  # an image, the packages that it is made of, a runtime's wheels for a device
RUNTIMES = {
    "onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch",
    "tflite": "ai-edge-litert", "executorch": "executorch",
}  # fmt: skip
EXTRAS = ("tflite", "executorch")
# What was found out about versions of QEMU, onnxruntime 1.31 and MobileNetV1 in float32 on a Cortex-A72.
FAULTS: dict[int, tuple[State, str]] = {
    7: (
        "ok",
        "as tested; onnxruntime 1.31 crashes on the /proc/cpuinfo that it shows: the board's is put there",
    ),
    10: ("note", "float32 takes 2.3 times as long as with 7.2 (10.0.2)"),
    11: (
        "note",
        "tells no memory of a process, and dies of SIGILL where no core is named (11.1.3): one is named",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: `note` where something optional is missing or has a known fault.
        says: what was found.
        todo: the command that mends it.
    """

    name: str
    state: State
    says: str
    todo: str | None = None


def checks() -> Iterator[Check]:
    """Everything, as it is found."""
    yield Check(name="Python", state="ok", says=f"{platform.python_version()}, {sys.executable}")
    yield _pip()
    yield from map(_runtime, RUNTIMES)
    yield _cache()
    yield from _containers()
    yield from _programs()


def _pip() -> Check:
    if importlib.util.find_spec("pip") is None:
        todo = f"{sys.executable} -m ensurepip"
        return Check(name="pip", state="missing", says="fetches a device's packages; not there", todo=todo)
    return Check(name="pip", state="ok", says=metadata.version("pip"))


def _runtime(name: str) -> Check:
    try:
        return Check(name=name, state="ok", says=metadata.version(RUNTIMES[name]))
    except metadata.PackageNotFoundError:
        if name in EXTRAS:
            todo = f"{sys.executable} -m pip install 'edgekit[{name}]'"
            return Check(
                name=name, state="note", says="not installed; no network is converted for it", todo=todo
            )
        todo = f"{sys.executable} -m pip install --upgrade edgekit"
        return Check(name=name, state="missing", says="not installed", todo=todo)


def _cache() -> Check:
    folder, todo = cache_folder(), "free some space, or set EDGEKIT_CACHE to another folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return _disk("cache", folder, todo)
    except OSError as error:
        says = f"{folder} cannot be written: {error.strerror}"
        return Check(name="cache", state="missing", says=says, todo=todo)


def _disk(name: str, folder: Path, todo: str) -> Check:
    free = shutil.disk_usage(folder).free / 1e9
    says = f"{free:.1f} GB free in {folder}"
    if free < NEEDED_GB:
        says += f"; {NEEDED_GB:.0f} GB are needed"
        return Check(name=name, state="missing", says=says, todo=todo)
    return Check(name=name, state="ok", says=says)


def _containers() -> Iterator[Check]:
    """What emulated containers need."""
    try:
        client = connect()
    except OutsideFailure as error:
        yield _failed("Docker engine", error)
        yield from _emulator(None)
        return
    with contextlib.closing(client):
        about = client.info()
        says = f"{about['ServerVersion']}, cgroup version {about.get('CgroupVersion', '1')}"
        yield Check(name="Docker engine", state="ok", says=says)
        if not (about.get("MemoryLimit") and about.get("SwapLimit")):
            says = "not enforced by this kernel: a bundle that does not fit the board is not found out"
            todo = "boot with cgroup_enable=memory swapaccount=1"
            yield Check(name="memory limit", state="note", says=says, todo=todo)
        if (images := Path(about["DockerRootDir"])).is_dir():
            yield _disk("images", images, "docker image prune")
        yield from _emulator(client)


def _failed(name: str, error: EdgekitError) -> Check:
    return Check(name=name, state="missing", says=error.what, todo=error.todo)


def _emulator(client: Any) -> Iterator[Check]:
    try:
        found = registered() if client is None else require_emulation(client)
    except OutsideFailure as error:
        yield _failed("emulator", error)
        return
    if found is None:
        yield Check(name="emulator", state="note", says="the engine has its own, not seen from here")
        return
    yield Check(name="emulator", state="ok", says=f"{found.interpreter}, flags {found.flags}")
    yield _qemu(qemu_version(found.interpreter))


def _qemu(version: str | None) -> Check:
    """The version of QEMU and what is known of it."""
    if version is None:
        return Check(
            name="QEMU", state="note", says="does not tell its version; 7.2 is the one that was tested"
        )
    state, fault = FAULTS.get(int(version.partition(".")[0]), ("note", "7.2 is the one that was tested"))
    return Check(name="QEMU", state=state, says=f"{version}: {fault}")


def _programs() -> Iterator[Check]:
    """Programs that single commands call."""
    needs: list[tuple[str, State, str, str]] = [
        ("gpgv", "missing", "checks the signature of Debian's packages", "gpgv"),
        ("gcc", "note", "compiles what counts instructions; only `bench --count` needs it", "gcc libc6-dev"),
        (
            "ssh",
            "note",
            "edgekit does not need it; it helps to find out why a device does not answer",
            "openssh-client",
        ),
        ("ssh-keygen", "note", "makes a key, so that a device asks for no password", "openssh-client"),
    ]
    for program, state, what, package in needs:
        if path := shutil.which(program):
            yield Check(name=program, state="ok", says=path)
        else:
            says, todo = f"not there; {what}", f"sudo apt-get install {package}"
            yield Check(name=program, state=state, says=says, todo=todo)
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not keyring.exists():
        says, todo = "not there; an image is made with it", "sudo apt-get install debian-archive-keyring"
        yield Check(name="Debian's keys", state="missing", says=says, todo=todo)
