"""Run a bundle on other devices than this process: over SSH, in an emulated container, on several at once.

The protocol is that of `edgekit.bench`, by the same runner. Where the device is emulated nothing is timed:
what is found there is that the bundle installs, starts and answers right, and what memory it takes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.bench import CHECK_SECONDS, Mode, bench, bench_options
from edgekit.bundle.manifest import Manifest, read_manifest
from edgekit.devices.container import ContainerDevice
from edgekit.devices.count import count_inference
from edgekit.devices.device import Detail
from edgekit.devices.inventory import Place
from edgekit.devices.mismatch import mismatches
from edgekit.devices.together import Together
from edgekit.devices.visit import Manner, Settled, Visit, bundle_folder, run_runner, settle, visit
from edgekit.emulation.count import PLACE, counting_qemu
from edgekit.errors import EdgekitError, OutsideFailure

Run = Callable[[Sequence[str], float], dict[str, Any]]
EMULATED = "edgekit.emulated/1"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be measured.

    Attributes:
        mode: the protocol.
        threads: that one inference may use; what the bundle asks for when None.
        sustained_s: measure for that many seconds, and judge by the steady state; None: as `mode` says.
        count: of emulated devices, the instructions of an inference.
    """

    mode: Mode = "standard"
    threads: int | None = None
    sustained_s: float | None = None
    count: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one device gave: a record, or the error that took its place."""

    place: Place
    record: dict[str, Any] | None = None
    error: EdgekitError | None = None


@dataclass(frozen=True, kw_only=True)
class _Round:
    """What the devices of one call share."""

    bundle: Path
    manifest: Manifest
    wanted: Wanted
    manner: Manner
    together: Together
    processor: threading.Lock  # this machine's: devices that share it take turns


def bench_all(
    bundle: Path, places: Sequence[Place], wanted: Wanted, manner: Manner, *, detail: Detail
) -> list[Found]:
    """Bench a bundle on every place; gives what each gave, in their order.

    Devices work at the same time, but those that share this machine's processor take turns. One that fails
    does not stop the others.

    Args:
        bundle: its folder.
        places: at least one.
        wanted: what to measure.
        manner: how devices are treated; `offline` of a place counts too.
        detail: takes the lines of progress, with the device's name before them where there are several.

    Raises:
        BadInput: there is no bundle; no device was asked then.
        KeyboardInterrupt: as the user's Ctrl-C; what ran on the devices has been ended.
    """
    together = Together(manner.ask)
    shared = _Round(
        bundle=bundle,
        manifest=read_manifest(bundle),
        wanted=wanted,
        manner=replace(manner, ask=together.ask),
        together=together,
        processor=threading.Lock(),
    )
    found: dict[str, Found] = {}

    def work(place: Place) -> None:
        said = detail if len(places) == 1 else lambda line: detail(f"{place.name}: {line}")
        found[place.name] = _bench_one(place, shared, said)

    together.run([partial(work, place) for place in places if place.address.kind != "local"])
    for place in places:
        if place.address.kind == "local":
            work(place)
    return [found[place.name] for place in places]


def _bench_one(place: Place, shared: _Round, detail: Detail) -> Found:
    def said(line: str) -> None:
        if shared.together.stopped.is_set():
            raise OutsideFailure("stopped", where=place.name)
        detail(line)

    try:
        if place.address.kind == "local":
            record = _bench_here(shared, said)
        else:
            record = _bench_there(place, shared, said)
    except EdgekitError as error:
        return Found(place=place, error=error)
    except Exception as error:  # noqa: BLE001 - one device's trouble is not the others'
        return Found(place=place, error=EdgekitError(f"{type(error).__name__}: {error}", where=place.name))
    return Found(
        place=place, record={**record, "device": {"name": place.name, "address": str(place.address)}}
    )


def _bench_here(shared: _Round, detail: Detail) -> dict[str, Any]:
    wanted = shared.wanted
    return bench(
        shared.bundle,
        mode=wanted.mode,
        threads=wanted.threads,
        sustained_s=wanted.sustained_s,
        detail=detail,
    )


def _bench_there(place: Place, shared: _Round, detail: Detail) -> dict[str, Any]:
    manifest = shared.manifest
    manner = _manner(place, shared, detail)
    with _visited(place, shared, manner, detail) as there:
        folder = bundle_folder(manifest, shared.bundle)
        settled = settle(there, shared.bundle, manifest, folder=folder, detail=detail)

        def run(options: Sequence[str], seconds: float) -> dict[str, Any]:
            return run_runner(
                there,
                settled,
                manifest,
                options,
                seconds=seconds,
                detail=detail,
                stopped=shared.together.stopped,
            )

        if there.facts["emulated"]:
            record = _look_emulated(there, settled, shared, run, detail)
        else:
            record = _time(shared.wanted, run)
        unlike = mismatches(there.facts, manifest.device)
        return {**record, "mismatches": unlike, "probe": there.facts}


def _manner(place: Place, shared: _Round, detail: Detail) -> Manner:
    """How this place is treated: a container has no network, and is given the emulator that counts."""
    offline = shared.manner.offline or place.offline
    if place.address.kind != "container":
        return replace(shared.manner, offline=offline)
    mounts = {PLACE: counting_qemu(detail)} if shared.wanted.count else {}
    return replace(shared.manner, offline=True, mounts=mounts)


@contextlib.contextmanager
def _visited(place: Place, shared: _Round, manner: Manner, detail: Detail) -> Iterator[Visit]:
    """The device, looked at, when it is its turn; an emulator disturbs others from its start on."""
    with contextlib.ExitStack() as stack:
        is_container = place.address.kind == "container"
        if is_container:
            stack.enter_context(shared.processor)
            stack.enter_context(shared.together.on_device())
        there = stack.enter_context(visit(place.address, manner, detail=detail))
        if not is_container:
            stack.enter_context(shared.together.on_device())
        if not is_container and there.device.is_here:
            stack.enter_context(shared.processor)
        yield there


def _time(wanted: Wanted, run: Run) -> dict[str, Any]:
    options, seconds = bench_options(wanted.mode, wanted.threads, wanted.sustained_s)
    return run(options, seconds)


def _look_emulated(
    there: Visit, settled: Settled, shared: _Round, run: Run, detail: Detail
) -> dict[str, Any]:
    """What can be known of an emulated device: no time is measured."""
    manifest, wanted = shared.manifest, shared.wanted
    threads = [] if wanted.threads is None else ["--threads", str(wanted.threads)]
    check = run(["--check", "--json", *threads], CHECK_SECONDS)
    memory = run(["--memory", *threads], CHECK_SECONDS)
    own = (manifest.artifact, *manifest.beside)
    memory["artifact_mb"] = sum(manifest.files[name].bytes for name in own) / 1e6
    device = there.device
    box = asdict(device.memory()) if isinstance(device, ContainerDevice) else None
    count = None
    if wanted.count and box is not None:
        detail("counting instructions")
        count = count_inference(device, settled.python, settled.runner, settled.bundle, detail=detail)
    about = {"name": manifest.name, "target": manifest.device.target, "profile": manifest.device.profile}
    return {
        "schema": EMULATED,
        "bundle": about,
        "check": check,
        "memory": memory,
        "container": box,
        "count": count,
        "facts": there.facts,
    }
