"""The Docker engine of this machine, and what lets the kernel run binaries of another processor."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import OutsideFailure, clean, first_line

LOCAL = "http+docker://localhost"  # the SDK's name for a Unix socket
BINFMT = Path("/proc/sys/fs/binfmt_misc")
AARCH64 = "7f454c460201010000000000000000000200b700"  # how an ELF file for it begins
INSTALL_QEMU = "sudo apt-get install qemu-user-static binfmt-support"
ENABLE = "sudo update-binfmts --enable qemu-aarch64"
REGISTER_AGAIN = f"sudo apt-get install --reinstall qemu-user-static && {ENABLE}"


@dataclass(frozen=True, kw_only=True)
class Binfmt:
    """How binaries for arm64 are run here: what is registered with the kernel.

    Attributes:
        interpreter: the emulator.
        flags: of the registration; F means that a container needs no emulator inside.
    """

    interpreter: Path
    flags: str


def connect() -> Any:
    """The engine, as a `docker.DockerClient`; the caller closes it.

    Raises:
        OutsideFailure: it cannot be used; the line names the command that mends it.
    """
    from docker.errors import DockerException

    import docker

    try:
        client = docker.from_env()
        client.ping()
    except (DockerException, OSError, ValueError) as error:
        raise _unreachable(error) from error
    if client.api.base_url != LOCAL:
        client.close()
        what = "is on another machine: its containers cannot see this one's files"
        raise OutsideFailure(what, where="the engine of DOCKER_HOST", todo="unset DOCKER_HOST")
    return client


def _unreachable(error: BaseException) -> OutsideFailure:
    """Why the engine does not answer, from the cause that the libraries wrapped several times."""
    where, causes = "the Docker engine", _causes(error)
    if any(isinstance(cause, PermissionError) for cause in causes):
        what = "you may not use it"
        return OutsideFailure(what, where=where, todo="sudo usermod -aG docker $USER, then log in again")
    if not any(isinstance(cause, (FileNotFoundError, ConnectionRefusedError)) for cause in causes):
        what = f"cannot be used: {first_line(error)}"
        return OutsideFailure(what, where=where, todo="`docker info` says more")
    if shutil.which("dockerd") is None:
        return OutsideFailure("there is none", where=where, todo="sudo apt-get install docker.io")
    systemd = Path("/run/systemd/system").is_dir()
    todo = "sudo systemctl start docker" if systemd else "sudo service docker start"
    return OutsideFailure("it does not run", where=where, todo=todo)


def _causes(error: BaseException | None) -> list[BaseException]:
    """The exception and all that it came from; requests and urllib3 put theirs among the arguments."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or one in found:
            continue
        found.append(one)
        reason = getattr(one, "reason", None)
        waiting += [one.__cause__, one.__context__, reason if isinstance(reason, BaseException) else None]
        waiting += [argument for argument in one.args if isinstance(argument, BaseException)]
    return found


def require_emulation(client: Any) -> Binfmt | None:
    """Make sure that the engine's kernel runs binaries for arm64 by an emulator, and say by which.

    An engine in a virtual machine brings its own, which cannot be seen from here: None. If it has none, the
    container's start says so.

    Raises:
        OutsideFailure: it does not; the line names the command that mends it.
    """
    about = client.info()
    if about.get("Architecture") == "aarch64":
        what = "this machine is arm64 itself and would run a board's programs by its own core"
        raise OutsideFailure(what, todo="bench on the board by ssh://, or on an x86 machine")
    if platform.system() != "Linux" or about.get("KernelVersion") != platform.release():
        return None
    return registered()


def registered() -> Binfmt:
    """The emulator that this kernel runs binaries for arm64 by.

    Raises:
        OutsideFailure: there is none, or containers do not find it.
    """
    found = binfmt()
    if found is None:
        raise no_emulator()
    if "F" not in found.flags:
        what = "the emulator is registered without the flag F, so that a container does not find it"
        raise OutsideFailure(what, where="qemu-aarch64", todo=REGISTER_AGAIN)
    return found


def no_emulator() -> OutsideFailure:
    """The refusal where binaries for arm64 cannot be run."""
    installed = shutil.which("qemu-aarch64-static") and shutil.which("update-binfmts")
    what = "binaries for arm64 cannot run here"
    return OutsideFailure(what, where="binfmt_misc", todo=ENABLE if installed else INSTALL_QEMU)


def binfmt() -> Binfmt | None:
    """The enabled registration for arm64; None where there is none."""
    try:
        paths = sorted(path for path in BINFMT.iterdir() if path.name not in ("register", "status"))
        texts = [path.read_text() for path in paths]
    except OSError:
        return None
    for text in texts:
        words = dict(line.partition(" ")[::2] for line in text.splitlines())
        if text.startswith("enabled") and words.get("magic") == AARCH64:
            return Binfmt(interpreter=Path(words["interpreter"]), flags=words.get("flags:", ""))
    return None


def qemu_version(program: Path) -> str | None:
    """The version of an emulator, "7.2.22"; None where it does not say."""
    real = os.path.realpath(program)  # under the name that is registered it takes other arguments
    try:
        said = subprocess.run(
            [real, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(rb"version (\d+(\.\d+)+)", said.stdout)
    return match[1].decode() if match else None


def reason(error: BaseException) -> str:
    """Why the engine refuses something: its own words, without those of HTTP."""
    said = getattr(error, "explanation", None)
    return clean(said, 200) if said else first_line(error)
