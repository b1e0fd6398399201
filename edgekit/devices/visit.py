"""A visit to a device: connect, look at it, put a bundle there with what it needs, run edgekit's runner on it.

The bundle's own `run.py` is data from elsewhere and is not executed; it is edgekit's that goes along.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import posixpath
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import ondevice
from edgekit.bundle.manifest import FILE, Manifest
from edgekit.devices.address import Address
from edgekit.devices.compatibility import refuse_known_bad
from edgekit.devices.detached import run_detached
from edgekit.devices.device import Detail, Device
from edgekit.devices.environment import make_environment
from edgekit.devices.here import Here
from edgekit.devices.probe import Facts, choose_python, find_pythons, probe
from edgekit.devices.program import refusal
from edgekit.devices.transfer import send
from edgekit.devices.wheels import wheels_for
from edgekit.errors import OutsideFailure

RUNNER = Path(ondevice.__path__[0])
Ask = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How the user wants devices to be treated.

    Attributes:
        accept_host_key: the fingerprint of an SSH host key that is not known yet, `SHA256:...`.
        ask: asks the user for a password by a prompt and gives it back unseen; None where nobody can answer.
        offline: send the packages along, for a device without internet.
        patience_s: how long a device that is gone is waited for.
    """

    accept_host_key: str | None = None
    ask: Ask | None = None
    offline: bool = False
    patience_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A device that was looked at.

    Attributes:
        python: of the device, for edgekit's own programs.
        root: edgekit's folder there, absolute.
    """

    device: Device
    python: str
    root: str
    facts: Facts
    manner: Manner


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A bundle that is on a device with its packages; paths are the device's, absolute."""

    bundle: str
    python: str


@contextlib.contextmanager
def visit(address: Address, manner: Manner, *, detail: Detail) -> Iterator[Visit]:
    """Connect and look, before anything else is done there.

    Raises:
        OutsideFailure: the device cannot be reached, or has no Python that is new enough for edgekit's programs.
    """
    detail("connecting")
    device = open_device(address, manner, detail)
    try:
        detail("looking at the device")
        python = find_pythons(device)[0].path
        facts = probe(device, python)
        yield Visit(device=device, python=python, root=facts["root"], facts=facts, manner=manner)
    finally:
        device.close()


def open_device(address: Address, manner: Manner, detail: Detail) -> Device:
    """The device at an address, connected.

    Raises:
        OutsideFailure: it cannot be reached.
    """
    if address.kind == "ssh":
        from edgekit.devices.ssh import open_ssh

        return open_ssh(address, accept_host_key=manner.accept_host_key, ask=manner.ask)
    if address.kind == "container":
        from edgekit.devices.container import open_container

        return open_container(address.target, detail=detail)
    return Here()


def settle(visit: Visit, bundle: Path, manifest: Manifest, *, folder: str, detail: Detail) -> Settled:
    """Put the bundle into `folder` of the device with an environment of its own beside it.

    Args:
        visit: where.
        bundle: the folder; its files were checked.
        manifest: of it.
        folder: below the visit's root; gets `bundle/` and `venv/`.
        detail: takes the lines of progress.

    Raises:
        OutsideFailure: a package is known to crash there, or has no build for it; no room; no network.
        ConnectionLost: the device is gone, and was not back in time.
    """
    python = choose_python(visit.facts, manifest.device.python)
    refuse_known_bad(manifest.requirements, visit.facts, python)
    wheels: dict[str, Path] = {}
    if visit.manner.offline:
        detail("fetching the packages")
        wheels = wheels_for(
            manifest.requirements, arch=visit.facts["arch"], python=python.version, glibc=visit.facts["glibc"]
        )
    send_with_patience(
        visit, {name: bundle / name for name in (FILE, *manifest.files)}, f"{folder}/bundle", detail
    )
    own = make_environment(
        visit.device,
        python.path,
        visit.root,
        folder,
        manifest.requirements,
        wheels=wheels or None,
        system_packages=manifest.runtime.name == "tensorrt",
        detail=detail,
    )
    return Settled(bundle=posixpath.join(visit.root, folder, "bundle"), python=own)


def send_with_patience(visit: Visit, files: Mapping[str, Path], folder: str, detail: Detail) -> None:
    """Send files; a connection that breaks is taken up again, and what arrived is not sent twice."""
    send(
        visit.device, visit.python, visit.root, files, folder, patience=visit.manner.patience_s, detail=detail
    )


def bundle_folder(manifest: Manifest, bundle: Path) -> str:
    """Where a bundle lies on a device: the same bundle, the same place."""
    return f"bundles/{manifest.name}-{digest(bundle)}"


def digest(bundle: Path) -> str:
    """Twelve digits of the SHA-256 of the manifest, which holds those of all other files."""
    return hashlib.sha256((bundle / FILE).read_bytes()).hexdigest()[:12]


def run_runner(
    visit: Visit,
    settled: Settled,
    options: Sequence[str],
    *,
    seconds: float,
    detail: Detail,
    stopped: threading.Event | None = None,
) -> dict[str, Any]:
    """What edgekit's `run.py` prints as JSON for the bundle there; it runs on when the connection breaks.

    Args:
        visit: where.
        settled: what.
        options: of `run.py`.
        seconds: after which it is ended, on the device too.
        detail: takes each line of progress.
        stopped: ends it when set.

    Raises:
        EdgekitError: the runner's own refusal, of the class that belongs to its exit status.
        OutsideFailure: it crashed, took too long, or the device is gone.
    """
    runner = {path.relative_to(RUNNER).as_posix(): path for path in _runner_files()}
    key = hashlib.sha256(b"".join(path.read_bytes() for path in runner.values())).hexdigest()[:12]
    send_with_patience(visit, runner, f"runner/{key}", detail)
    program = posixpath.join(visit.root, "runner", key, "run.py")
    done = run_detached(
        visit.device,
        visit.python,
        visit.root,
        [settled.python, program, "--bundle", settled.bundle, *options],
        seconds=seconds,
        patience=visit.manner.patience_s,
        detail=detail,
        stopped=stopped,
    )
    if done.status != 0:
        raise refusal(done.status, done.last, "run.py", visit.device.name)
    try:
        figures: dict[str, Any] = json.loads(done.printed)
    except ValueError as error:
        raise OutsideFailure("the runner printed no figures", where=visit.device.name) from error
    return figures


def _runner_files() -> list[Path]:
    return [RUNNER / "run.py", *sorted((RUNNER / "runner").glob("*.py"))]
