"""A visit to a device: connect, look, put a bundle there with what it needs, run edgekit's runner on it.

The bundle's own `run.py` is data from elsewhere and is not executed; it is edgekit's that goes along.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import posixpath
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit import ondevice
from edgekit.bundle.manifest import FILE, Manifest
from edgekit.devices.address import Address
from edgekit.devices.compatibility import advice_after_crash, refuse_known_bad, userland, with_advice
from edgekit.devices.detached import Finished, run_detached
from edgekit.devices.device import Detail, Device
from edgekit.devices.environment import make_environment
from edgekit.devices.here import Here
from edgekit.devices.probe import Facts, choose_python, find_pythons, probe
from edgekit.devices.program import refusal
from edgekit.devices.transfer import send
from edgekit.devices.wheels import in_bundle, wheels_for
from edgekit.errors import EdgekitError, OutsideFailure

RUNNER = Path(ondevice.__path__[0])
Ask = Callable[[str], str]
SIGNALLED = 128  # what is added to a signal's number
REBOOTED = "the device rebooted in the middle of a first try; look at its power supply and its temperature"
MORE_MEMORY = "stop what else runs there, or build for less: `edgekit build ... --memory 64MB`"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How the user wants devices to be treated.

    Attributes:
        accept_host_key: the fingerprint of an SSH host key that is not known yet, `SHA256:...`.
        ask: asks the user for a password by a prompt and gives it back unseen; None where nobody can answer.
        offline: send the packages along, for a device without internet.
        patience_s: how long a device that is gone is waited for.
        mounts: more folders of this machine that a container may read, by their place there.
    """

    accept_host_key: str | None = None
    ask: Ask | None = None
    offline: bool = False
    patience_s: float = 300.0
    mounts: Mapping[str, Path] = field(default_factory=dict)


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
    """A bundle that is on a device with its packages; paths are the device's, absolute.

    Attributes:
        bundle: its folder.
        python: of its environment.
        runner: edgekit's own `run.py`.
    """

    bundle: str
    python: str
    runner: str


@contextlib.contextmanager
def visit(address: Address, manner: Manner, *, detail: Detail) -> Iterator[Visit]:
    """Connect and look, before anything else is done there.

    Raises:
        OutsideFailure: the device cannot be reached, or has no Python that is new enough.
    """
    detail("connecting")
    device = open_device(address, manner, detail)
    try:
        detail("looking at the device")
        pythons = find_pythons(device)
        python = pythons[0].path
        facts = probe(device, python, pythons=pythons)
        yield Visit(device=device, python=python, root=facts["root"], facts=facts, manner=manner)
    except EdgekitError as error:
        trouble = device.trouble()
        if trouble is None:
            raise
        raise OutsideFailure(trouble, where=device.name, todo=MORE_MEMORY) from error
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

        return open_container(address.target, detail=detail, mounts=manner.mounts)
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
    arch, glibc = userland(visit.facts["arch"], python.bits), visit.facts["glibc"]
    wheels = in_bundle(bundle, manifest, arch=arch, python=python.version, glibc=glibc)
    if visit.manner.offline and not wheels:
        detail("fetching the packages")
        wheels = wheels_for(
            manifest.requirements, arch=arch, python=python.version, glibc=glibc, detail=detail
        )
    _send(visit, {name: bundle / name for name in (FILE, *manifest.files)}, f"{folder}/bundle", detail)
    own = make_environment(
        visit.device,
        python.path,
        visit.root,
        folder,
        manifest.requirements,
        wheels=wheels or None,
        system_packages=manifest.runtime.name == "tensorrt",
        detail=detail,
        patience=visit.manner.patience_s,
    )
    place = posixpath.join(visit.root, folder, "bundle")
    return Settled(bundle=place, python=own, runner=_put_runner(visit, detail))


def _put_runner(visit: Visit, detail: Detail) -> str:
    """The path of edgekit's own `run.py` on the device, where it is put with its parts."""
    files = {path.relative_to(RUNNER).as_posix(): path for path in _runner_files()}
    key = hashlib.sha256(b"".join(path.read_bytes() for path in files.values())).hexdigest()[:12]
    _send(visit, files, f"runner/{key}", detail)
    return posixpath.join(visit.root, "runner", key, "run.py")


def _send(visit: Visit, files: Mapping[str, Path], folder: str, detail: Detail) -> None:
    patience = visit.manner.patience_s
    send(visit.device, visit.python, visit.root, files, folder, patience=patience, detail=detail)


def bundle_folder(manifest: Manifest, bundle: Path) -> str:
    """Where a bundle lies on a device: the same bundle, the same place."""
    return f"bundles/{manifest.name}-{digest(bundle)}"


def digest(bundle: Path) -> str:
    """Twelve digits of the SHA-256 of the manifest, which holds those of all other files."""
    return hashlib.sha256((bundle / FILE).read_bytes()).hexdigest()[:12]


def run_runner(
    visit: Visit,
    settled: Settled,
    manifest: Manifest,
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
        manifest: of it.
        options: of `run.py`.
        seconds: after which it is ended, on the device too.
        detail: takes each line of progress.
        stopped: ends it when set.

    Raises:
        EdgekitError: the runner's own refusal, of the class that belongs to its exit status.
        OutsideFailure: it crashed, took too long, or the device is gone.
    """
    done = run_detached(
        visit.device,
        visit.python,
        visit.root,
        [settled.python, settled.runner, "--bundle", settled.bundle, *options],
        seconds=seconds,
        patience=visit.manner.patience_s,
        detail=detail,
        stopped=stopped,
    )
    if done.status != 0:
        raise _failure(done, visit, manifest)
    try:
        figures: dict[str, Any] = json.loads(done.printed)
    except ValueError as error:
        raise OutsideFailure("the runner printed no figures", where=visit.device.name) from error
    if done.rebooted:
        figures.setdefault("warnings", []).append(REBOOTED)
    return figures


def _failure(done: Finished, visit: Visit, manifest: Manifest) -> EdgekitError:
    """What an unhappy end means; a crash is called one, with what to install instead."""
    where = visit.device.name
    if done.out_of_memory:
        return OutsideFailure("the runner was ended for want of memory", where=where, todo=MORE_MEMORY)
    if done.status <= SIGNALLED:
        return with_advice(
            refusal(done.status, done.last, "run.py", where), manifest.requirements, visit.facts
        )
    name = signal.Signals(done.status - SIGNALLED).name
    advice = advice_after_crash(manifest.requirements, visit.facts, name)
    return OutsideFailure(f"the runner was ended by {name}", where=where, todo=advice)


def _runner_files() -> list[Path]:
    return [RUNNER / "run.py", *sorted((RUNNER / "runner").glob("*.py"))]
