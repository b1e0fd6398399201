"""Switch a service to a version, start it where there is systemd, and go back when it does not come up."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any, Dict, Iterator, List, Optional

service, signature, versions = (
    sys.modules[f"edgekit_{name}"] for name in ("service", "signature", "versions")
)
Refused = signature.Refused

OUTSIDE = 4


def put_into_service(folder: str, name: str, version: str, address: str) -> Dict[str, Any]:
    """Switch to a version that was checked, and start it where there is systemd.

    Raises:
        Refused: it does not start, or is not healthy; what was in service before is in service again.
    """
    manager, before = service.Manager(), versions.linked(folder, versions.CURRENT)
    address = address or read(os.path.join(folder, "address")) or service.usual_address(name)
    outcome = {
        "name": name,
        "version": version,
        "before": before,
        "address": address,
        "service": None,
        "notes": [],
    }
    absent = manager.why_absent()
    if absent:
        say("switching to it")
        if version != before:
            versions.begin_trial(folder, version)
            versions.confirm(folder)
        return {
            **outcome,
            "address": None,
            "notes": [f"no service was started: {absent}", by_hand(folder, address)],
        }
    run(manager, folder, name, version, address)
    where = address.replace("%t", manager.runtime)
    hint = manager.hint()
    return {**outcome, "address": where, "service": service.unit_name(name), "notes": [hint] if hint else []}


def by_hand(folder: str, address: str) -> str:
    """How a version is served where nothing starts services."""
    current = os.path.join(folder, versions.CURRENT)
    where = f"unix:{folder}/http.sock" if "%t" in address else address
    return f"start it with `{current}/venv/bin/python {current}/bundle/run.py --serve {where}`"


def run(manager: Any, folder: str, name: str, version: str, address: str) -> None:
    """Start a version as the service; see `put_into_service`."""
    unit, settings = service.unit_name(name), os.path.join(folder, "address")
    path, text = manager.path(unit), service.unit_text(manager, name, folder, address)
    before = versions.linked(folder, versions.CURRENT)
    former = {path: read(path), settings: read(settings)}
    if (
        version == before
        and former[path] == text
        and service.asked(address.replace("%t", manager.runtime), version) is None
    ):
        say("it is in service already")
        return
    say("switching to it")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with on_trial(manager, unit):
        versions.write(settings, address)
        versions.write(path, text)
        if version != before:
            versions.begin_trial(folder, version)
        since = time.time()
        wrong = start(manager, unit, address, version)
        if wrong is None:
            os.sync()  # the links of `systemctl enable` too
            versions.confirm(folder)
            return
        words = manager.last_words(unit, since)
        undone = undo(manager, folder, name, before, former)
    if version not in (before, versions.linked(folder, versions.PREVIOUS)):
        versions.discard(folder, version)
    raise Refused(
        f"version {version} did not come up: {wrong}; {undone}; it said: {words or 'nothing'}", OUTSIDE
    )


@contextlib.contextmanager
def on_trial(manager: Any, unit: str) -> Iterator[None]:
    """Tell the unit, in memory alone, that a deployment goes on; see `service.UNIT`."""
    mark = os.path.join(manager.runtime, f"{unit}.trial")
    with open(mark, "w", encoding="utf-8"):
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(mark)


def start(manager: Any, unit: str, address: str, version: str) -> Optional[str]:
    """(Re)start the service and ask for its health; returns what is wrong, None if nothing is."""
    say("starting the service")

    def beat() -> None:
        say("waiting for the service")

    for words in (["daemon-reload"], ["enable", unit], ["reset-failed", unit], ["restart", unit]):
        status, text = manager.systemctl(*words, beat=beat)
        if status and words[0] != "reset-failed":
            return f"systemctl {words[0]}: {(text.splitlines() or ['no message'])[0]}"
    say("asking for its health")
    wrong: Optional[str] = service.healthy(manager, unit, address, version, beat)
    return wrong


def undo(
    manager: Any, folder: str, name: str, before: Optional[str], former: Dict[str, Optional[str]]
) -> str:
    """Put back what was in service before, with its settings; returns what came of it, in words."""
    say("it failed; going back")
    unit = service.unit_name(name)
    versions.take_back(folder)
    if former[manager.path(unit)] is None:
        manager.systemctl("disable", "--now", unit)
    if before is None:
        versions.withdraw(folder)
    for path, text in former.items():
        if text is None:
            versions.remove(path)
        else:
            versions.write(path, text)
    if before is None or former[manager.path(unit)] is None:
        manager.systemctl("daemon-reload")
        return "no service runs, as before"
    address = former[os.path.join(folder, "address")] or service.usual_address(name)
    wrong = start(manager, unit, address, before)
    return (
        f"{before} is in service again"
        if wrong is None
        else f"{before}, which was before, does not start either: {wrong}"
    )


def heal(folder: str, name: str) -> List[str]:
    """Take back a version whose deployment was cut short before it was found healthy; returns notes."""
    interrupted = versions.linked(folder, versions.CURRENT)
    before = versions.take_back(folder)
    if before is None:
        return []
    manager = service.Manager()
    if manager.why_absent() is None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(manager.runtime, f"{service.unit_name(name)}.trial"))
        manager.systemctl("restart", service.unit_name(name), beat=lambda: say("waiting for the service"))
    return [f"an interrupted deployment of {interrupted} was taken back: {before} is in service again"]


def read(path: str) -> Optional[str]:
    """The text of a small file; None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def say(line: str) -> None:
    """A line of progress; where nobody listens any more, the work goes on to its end."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
