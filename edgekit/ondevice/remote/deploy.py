"""Put a bundle that was sent to a device into service there, take it back, and tell what is in service.

    authorize ROOT NAME DIGEST               whether the device takes the bundle; asked before it is sent;
                                             given: {"manifest": ..., "signature": ... or null}
    install ROOT NAME DIGEST KEEP [ADDRESS]  check versions/DIGEST12, put it into service; given: as above
    rollback ROOT NAME VERSION               put the previous version into service, which is VERSION
    list ROOT                                all services

DIGEST is the SHA-256 of the manifest. A version that does not start is taken out of service again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence

activate, check, service, signature, versions = (
    sys.modules[f"edgekit_{name}"] for name in ("activate", "check", "service", "signature", "versions")
)
Refused = signature.Refused
say, read = activate.say, activate.read
Outcome = Dict[str, Any]

BAD_INPUT, OUTSIDE, CHECK_FAILED = 2, 4, 5
CHECK_SECONDS = 3600.0  # TensorRT makes its engine at the first run
LOCK_SECONDS = 900.0
ALLOWED = "allowed_signers"
SIGNATURE = "manifest.json.sig"


def main(arguments: Sequence[str]) -> int:
    """The program; returns its exit status."""
    action, root, *rest = arguments
    try:
        if action == "authorize":
            answer = authorize(root, rest[0], rest[1], json.load(sys.stdin))
        elif action == "install":
            answer = install(
                root, rest[0], rest[1], json.load(sys.stdin), keep=int(rest[2]), address="".join(rest[3:])
            )
        elif action == "rollback":
            answer = rollback(root, rest[0], rest[1])
        else:
            answer = {"services": [listed(root, name) for name in service_names(root)]}
    except Refused as refused:
        say(f"deploy: {' '.join(str(refused).split())}")
        return int(refused.status)
    except OSError as error:
        say(f"deploy: {error.filename or root}: {error.strerror or error}")
        return OUTSIDE
    with contextlib.suppress(OSError):
        print(json.dumps(answer), flush=True)
    return 0


def authorize(root: str, name: str, digest: str, given: Dict[str, Any]) -> Outcome:
    """Refuse what this device does not take; what an interrupted deployment left is tidied up."""
    manifest = given["manifest"].encode("ascii")
    if hashlib.sha256(manifest).hexdigest() != digest:
        raise Refused("the manifest did not arrive whole; deploy again", CHECK_FAILED)
    signer, notes = signer_of(root, manifest, given["signature"])
    folder, version = folder_of(root, name), digest[:12]
    os.makedirs(os.path.join(folder, "versions"), exist_ok=True)
    with locked(folder):
        notes += activate.heal(folder, name)
        versions.discard_half_done(folder)
        bundle = os.path.join(versions.place(folder, version), "bundle")
        # One that was damaged since is mended: each file that is sent replaces one at once.
        ready = versions.mark(folder, version) is not None and not wrong_files(bundle, manifest)
    return {"ready": ready, "signer": signer, "notes": notes}


def install(root: str, name: str, digest: str, given: Dict[str, Any], *, keep: int, address: str) -> Outcome:
    """Check the version that was sent, and put it into service."""
    folder, version = folder_of(root, name), digest[:12]
    with locked(folder):
        notes = activate.heal(folder, name)
        bundle = os.path.join(versions.place(folder, version), "bundle")
        say("checking the files")
        signer, more = refuse_changed(root, bundle, digest, given["signature"])
        if given["signature"]:
            versions.write(os.path.join(bundle, SIGNATURE), given["signature"])
        run_check(folder, version)
        if versions.mark(folder, version) is None:
            mark = {"when": round(time.time(), 3), "digest": digest, "signer": signer}
            versions.finish(folder, version, mark)
        outcome = activate.put_into_service(folder, name, version, address)
        pruned = versions.prune(folder, keep)
    return {**outcome, "signer": signer, "pruned": pruned, "notes": [*notes, *more, *outcome["notes"]]}


def rollback(root: str, name: str, version: str) -> Outcome:
    """Check the previous version again, and put it into service; done already when it is the current one."""
    folder = folder_of(root, name)
    with locked(folder):
        notes = activate.heal(folder, name)
        links = [versions.linked(folder, link) for link in (versions.CURRENT, versions.PREVIOUS)]
        mark = versions.mark(folder, version)
        if version not in links or mark is None:
            what = f"{version} is not the previous version of `{name}` any more"
            raise Refused(f"{what}; see `edgekit deploy --list`", BAD_INPUT)
        bundle = os.path.join(versions.place(folder, version), "bundle")
        say("checking the files")
        signer, more = refuse_changed(root, bundle, mark["digest"], read(os.path.join(bundle, SIGNATURE)))
        run_check(folder, version)
        outcome = activate.put_into_service(folder, name, version, "")
    return {**outcome, "signer": signer, "pruned": [], "notes": [*notes, *more, *outcome["notes"]]}


def signer_of(root: str, manifest: bytes, signed: Optional[str]) -> Any:
    """Who signed, and notes; refused where the device names signers, and none of them did."""
    files = [
        path for path in (f"/etc/edgekit/{ALLOWED}", os.path.join(root, ALLOWED)) if os.path.lexists(path)
    ]
    if not files:
        return None, [f"the device demands no signature: it has no {os.path.join(root, ALLOWED)}"]
    if not signed:
        what = f"the bundle is not signed, and {files[0]} says who must"
        raise Refused(f"{what}; have it signed with `edgekit sign`", CHECK_FAILED)
    name, key = signature.signer_of(manifest, signed.encode("utf-8"), files[0])
    return f"{name} ({key})", []


def refuse_changed(root: str, bundle: str, digest: str, signed: Optional[str]) -> Any:
    """Hold the files on the device against their digests, and the manifest against its signature."""
    path = os.path.join(bundle, "manifest.json")
    try:
        with open(path, "rb") as file:
            manifest = file.read()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; deploy again", CHECK_FAILED) from error
    if hashlib.sha256(manifest).hexdigest() != digest:
        raise Refused(f"{path} was changed on the device; deploy again", CHECK_FAILED)
    found = signer_of(root, manifest, signed)
    wrong = wrong_files(bundle, manifest)
    if wrong:
        raise Refused(f"on the device, {wrong[0]}; deploy again", CHECK_FAILED)
    return found


def wrong_files(bundle: str, manifest: bytes) -> List[str]:
    """What is wrong with the files that the manifest lists."""
    found: List[str] = check.wrong_files(bundle, json.loads(manifest.decode("utf-8"))["files"])
    return found


def run_check(folder: str, version: str) -> None:
    """Let the bundle compare its golden outputs in its own environment.

    Raises:
        Refused: it fails; a version that is not in service is removed.
    """
    say("running its check")
    place, start = versions.place(folder, version), time.monotonic()
    python = os.path.join(place, "venv", "bin", "python")
    command = [python, os.path.join(place, "bundle", "run.py"), "--check", "--json"]
    status, text = service.told(
        command,
        CHECK_SECONDS,
        folder=place,
        beat=lambda: say(f"running its check, {time.monotonic() - start:.0f} s"),
    )
    if status == 0:
        return
    line = (text.splitlines() or ["no message"])[-1].replace("run.py: ", "", 1)[:300]
    what = line if status > 0 else f"its check was ended by signal {-status}"
    versions.discard(folder, version)
    raise Refused(
        f"version {version} is not put into service: {what}", status if status in (2, 5) else OUTSIDE
    )


def service_names(root: str) -> List[str]:
    """The services that there are."""
    try:
        return sorted(os.listdir(os.path.join(root, "services")))
    except OSError:
        return []


def listed(root: str, name: str) -> Outcome:
    """A service with its versions, the newest first."""
    folder, manager = folder_of(root, name), service.Manager()
    links = {
        link: versions.linked(folder, link) for link in (versions.CURRENT, versions.PREVIOUS, versions.TRIAL)
    }
    found = []
    for version in versions.names(folder):
        mark = versions.mark(folder, version) or {}
        found.append(
            {
                "version": version,
                "when": mark.get("when"),
                "signer": mark.get("signer"),
                "size_mb": round(versions.size_mb(versions.place(folder, version)), 3),
                "active": version == links[versions.CURRENT],
                "previous": version == (links[versions.TRIAL] or links[versions.PREVIOUS]),
                "whole": bool(mark),
            }
        )
    found.sort(key=lambda one: one["when"] or 0, reverse=True)
    unit, state = service.unit_name(name), None
    if manager.why_absent() is None and os.path.exists(manager.path(unit)):
        state = manager.state(unit).get("ActiveState")
    return {"name": name, "service": state, "on_trial": links[versions.TRIAL] is not None, "versions": found}


def folder_of(root: str, name: str) -> str:
    """Where a service's versions and links lie."""
    return os.path.join(root, "services", name)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """One deployment of a service at a time; waits for another one, up to `LOCK_SECONDS`."""
    end, waits = time.monotonic() + LOCK_SECONDS, 0
    with open(os.path.join(folder, "lock"), "a", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Refused("another deployment of it goes on; try again later", OUTSIDE) from None
            if waits % 50 == 0:
                say("waiting for another deployment of it")
            waits += 1
            time.sleep(0.2)
        yield
