"""The virtual environment of a bundle on a device: its exact packages, and nothing outside of its folder."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.devices.device import Detail, Device
from edgekit.devices.patience import Patience
from edgekit.devices.program import call
from edgekit.devices.transfer import send
from edgekit.devices.wheels import installer_for

PATIENCE_S = 300.0
SILENCE_S = 120.0  # its program says something every 10 s, which a busy board may not manage
PARTS = ("remote/pip",)


def make_environment(  # noqa: PLR0913 - the bundle's place, its needs, and how they get there
    device: Device,
    python: str,
    root: str,
    folder: str,
    requirements: Mapping[str, str],
    *,
    wheels: Mapping[str, Path] | None,
    system_packages: bool,
    detail: Detail,
    patience: float = PATIENCE_S,
) -> str:
    """The Python of the bundle's environment on the device, absolute; one that is complete is used again.

    Args:
        device: where.
        python: the device's own, from which the environment is made; it need not have ensurepip.
        root: edgekit's folder there, absolute.
        folder: of the bundle, below `root`; gets `venv/` and `wheels/`.
        requirements: exact versions by package.
        wheels: what to install, by file name, with no index; None lets the device fetch from its own.
        system_packages: whether the system's packages are seen too, for TensorRT.
        detail: takes the lines of progress.
        patience: seconds that a device that is gone is waited for.

    Raises:
        OutsideFailure: no wheel fits, no network, no room, or the device is gone and was not back in time.
            Nothing half-installed counts as complete.
    """
    place = posixpath.join(root, folder)
    wanted = {
        "requirements": dict(requirements),
        "system_packages": system_packages,
        "offline": wheels is not None,
    }

    keeper = Patience(device, patience, detail)

    def heard(line: str) -> None:
        keeper.heard()
        detail(line)

    def ask(action: str) -> dict[str, Any]:
        def once() -> dict[str, Any]:
            given = [json.dumps(wanted).encode()]
            return call(
                device,
                python,
                "environment",
                [place, action],
                given=given,
                parts=PARTS,
                silence=SILENCE_S,
                detail=heard,
            )

        return keeper.keep_at(
            once, lost="the connection broke; connecting again", gone="its environment is not complete"
        )

    there = ask("look")
    if there["python"] is None:
        installer = _installer(wheels or {}, there["version"])
        files = {**(wheels or {}), installer.name: installer}
        send(device, python, root, files, f"{folder}/wheels", patience=patience, detail=detail)
        wanted["installer"] = installer.name
        there = ask("make")  # finds what another call finished, should this one break
    return str(there["python"])


def _installer(wheels: Mapping[str, Path], python: str) -> Path:
    """The wheel of pip: the one among the wheels, else one of this machine's."""
    ours = (path for name, path in wheels.items() if name.startswith("pip-"))
    return next(ours, None) or installer_for(python)
