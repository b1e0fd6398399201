"""Put a bundle into service on a device, go back to the one before, and list what is in service there.

What changes the device is `ondevice/remote/deploy.py`, which runs there: it goes on to a safe end when the
connection breaks, and the same order given again finds what is done already.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.archive import open_bundle
from edgekit.bundle.check import check_files
from edgekit.bundle.manifest import FILE, Manifest, read_manifest
from edgekit.bundle.sign import signature_of, who_signed
from edgekit.devices.address import Address
from edgekit.devices.device import ConnectionLost, Detail
from edgekit.devices.mismatch import mismatches
from edgekit.devices.program import call
from edgekit.devices.visit import Manner, Visit, settle, visit
from edgekit.errors import BadInput, EdgekitError, clean

PARTS = ("runner/check", "remote/signature", "remote/versions", "remote/service", "remote/activate")
KEEP = 2
TRIES = 5
SWEEP_DAYS = 1.0  # another edgekit may be sending files that nothing links to yet
SILENCE_SECONDS = 120.0  # the program says something every ten
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_UNIX = re.compile(r"unix:(/[A-Za-z0-9._-]+)+", re.ASCII)
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\]):(\d{1,5})", re.ASCII)
LONGEST_SOCKET = 107  # bytes of a path that a socket may have: sun_path of unix(7)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A version that is in service.

    Attributes:
        device: where.
        name: of the service.
        version: twelve digits of the SHA-256 of its manifest.
        before: the version that was in service, which may be the same; None where there was none.
        service: the systemd unit; None where no service manager runs there, and `notes` say how to start it.
        address: where it listens; None as above.
        signer: who signed the bundle, where the device demands it.
        pruned: older versions that were removed.
        warnings: where the device is not the bundle's target.
        notes: what the user should know.
    """

    device: str
    name: str
    version: str
    before: str | None
    service: str | None
    address: str | None
    signer: str | None
    pruned: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be put into service, and how.

    Attributes:
        name: of the service; the bundle's own when None.
        keep: how many versions stay on the device, the current and the previous one among them.
        address: where it listens; where it did before, or on a socket of its own, when None.
    """

    name: str | None = None
    keep: int = KEEP
    address: str | None = None


def deploy(bundle: Path, place: Address, order: Order, manner: Manner, *, detail: Detail) -> Deployed:
    """Put a bundle, a folder or an archive, into service on a device.

    Whatever fails, and wherever the power goes, the version that was in service before still is.

    Raises:
        BadInput: there is no bundle, or its name cannot be that of a service.
        VerificationFailed: a file, the signature or a golden output is not what it must be, here or there.
        OutsideFailure: the device cannot be reached or takes no such bundle; the service does not come up.
    """
    _refuse_container(place)
    with open_bundle(bundle) as folder:
        manifest = read_manifest(folder)
        name = service_name(order.name or manifest.name)
        detail("checking the bundle")
        check_files(folder, manifest)
        signature = signature_of(folder)
        if signature is not None:
            who_signed(folder)
        with visit(place, manner, detail=detail) as there:
            return _deploy(there, folder, manifest, name, signature, order, detail)


def _deploy(
    there: Visit,
    bundle: Path,
    manifest: Manifest,
    name: str,
    signature: bytes | None,
    order: Order,
    detail: Detail,
) -> Deployed:
    content = (bundle / FILE).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    given = {
        "manifest": content.decode("ascii"),
        "signature": None if signature is None else signature.decode("ascii", "replace"),
    }
    detail("asking whether the device takes it")
    found = _tell(there, ["authorize", there.root, name, digest], given, detail)
    if not found["ready"]:
        settle(there, bundle, manifest, folder=f"services/{name}/versions/{digest[:12]}", detail=detail)
    words = [
        "install",
        there.root,
        name,
        digest,
        str(order.keep),
        *([order.address] if order.address else []),
    ]
    done = _tell(there, words, given, detail)
    if done["pruned"]:
        _sweep(there)
    strange = mismatches(there.facts, manifest.device)
    return _deployed(there, done, strange, found["notes"])


def _sweep(there: Visit) -> None:
    """Remove files that no bundle on the device needs any more; it is done without, too."""
    with contextlib.suppress(EdgekitError):
        call(there.device, there.python, "receive", ["sweep", there.root, str(SWEEP_DAYS)])


def rollback(place: Address, name: str | None, manner: Manner, *, detail: Detail) -> Deployed:
    """Put the version that was in service before the current one into service again; it is checked first.

    Args:
        place: the device.
        name: of the service; may be None where there is one alone.
        manner: how the device is treated.
        detail: takes the lines of progress.

    Raises:
        BadInput: there is no such service or no previous version, or several services and no name.
        VerificationFailed: that version is no longer what it was.
        OutsideFailure: the device cannot be reached; the service does not come up.
    """
    _refuse_container(place)
    with visit(place, manner, detail=detail) as there:
        chosen, version = _previous(there, name, detail)
        done = _tell(there, ["rollback", there.root, chosen, version], None, detail)
        return _deployed(there, done)


def services(place: Address, manner: Manner, *, detail: Detail) -> list[dict[str, Any]]:
    """The services on a device, each with its `versions`, as `ondevice/remote/deploy.py` lists them.

    Raises:
        OutsideFailure: the device cannot be reached.
    """
    _refuse_container(place)
    with visit(place, manner, detail=detail) as there:
        return _services(there, detail)


def service_name(text: str) -> str:
    """The name of a service, which is part of the names of files.

    Raises:
        BadInput: it cannot be one.
    """
    if not _NAME.fullmatch(text):
        what = f"`{clean(text, 60)}` cannot be the name of a service"
        raise BadInput(what, where="--name", todo="give one of letters, digits, `.`, `_` and `-`")
    return text


def listening_address(text: str) -> str:
    """An address that a service may listen on: a Unix socket, or a port that other machines cannot reach.

    Raises:
        BadInput: it is none.
    """
    port = _LOOPBACK.fullmatch(text)
    if port and 0 < int(port[2]) < 65536:
        return text
    if _UNIX.fullmatch(text) and len(text.removeprefix("unix:")) <= LONGEST_SOCKET:
        return text
    raise BadInput(
        f"`{clean(text, 60)}` is no address to listen on",
        where="--listen",
        todo="write unix:/run/NAME.sock or 127.0.0.1:8080",
    )


def _previous(there: Visit, name: str | None, detail: Detail) -> tuple[str, str]:
    """The service of that name, or the only one, and its previous version."""
    found = {str(one["name"]): one for one in _services(there, detail)}
    if not found:
        raise BadInput("no service is there", where=there.device.name, todo="deploy a bundle first")
    if (name is None and len(found) > 1) or (name is not None and name not in found):
        what = f"has the services {', '.join(map(clean, found))}"
        raise BadInput(what, where=there.device.name, todo="name one of them with `--name`")
    chosen = next(iter(found)) if name is None else name
    for version in found[chosen]["versions"]:
        if version["previous"]:
            return chosen, str(version["version"])
    what = f"`{chosen}` has no previous version"
    raise BadInput(what, where=there.device.name, todo="deploy the one that you want")


def _services(there: Visit, detail: Detail) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _tell(there, ["list", there.root], None, detail)["services"]
    return found


def _tell(there: Visit, words: Sequence[str], given: Any, detail: Detail) -> dict[str, Any]:
    """Give the device's program an order; when the connection breaks, connect and give it again."""
    content, tries = json.dumps(given).encode("ascii"), TRIES
    while True:
        tries -= 1
        try:
            return call(
                there.device,
                there.python,
                "deploy",
                words,
                given=[content],
                parts=PARTS,
                silence=SILENCE_SECONDS,
                detail=detail,
            )
        except ConnectionLost as lost:
            if not tries:
                raise
            detail(f"the connection broke ({lost.what}); connecting again")
            there.device.reconnect(patience=there.manner.patience_s, detail=detail)


def _deployed(
    there: Visit, done: dict[str, Any], warnings: Sequence[str] = (), notes: Sequence[str] = ()
) -> Deployed:
    return Deployed(
        device=there.device.name,
        name=done["name"],
        version=done["version"],
        before=done["before"],
        service=done["service"],
        address=done["address"],
        signer=done["signer"],
        pruned=tuple(done["pruned"]),
        warnings=tuple(warnings),
        notes=tuple(dict.fromkeys([*notes, *done["notes"]])),
    )


def _refuse_container(place: Address) -> None:
    if place.kind == "container":
        what = "an emulated board keeps nothing"
        raise BadInput(
            what, where=f"--on {place}", todo="deploy to ssh://... or local; try it with `bench --on`"
        )
