"""Run a bundle on this machine: check it, measure its memory, time it.

It is always edgekit's own runner that runs, in a process of its own: a bundle may be anyone's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgekit.bundle.archive import open_bundle
from edgekit.bundle.check import check_files
from edgekit.bundle.manifest import FILE, Manifest, read_manifest
from edgekit.cost import Cost, Figure, How
from edgekit.devices.local import run_own_runner
from edgekit.errors import BadInput, VerificationFailed, count
from edgekit.files import written_whole

Mode = Literal["quick", "standard", "strict"]
Detail = Callable[[str], None]

# Far above what the protocols ask for; what takes longer hangs.
SECONDS: Mapping[Mode, float] = {"quick": 600.0, "standard": 3600.0, "strict": 3 * 3600.0}
CHECK_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A bundle that passed.

    Attributes:
        samples: how many golden samples agree.
        lowest_snr_db: of any output; None when all are equal.
        notes: what was left out of account.
    """

    manifest: Manifest
    samples: int
    lowest_snr_db: float | None
    notes: tuple[str, ...]


def _silent(line: str) -> None:
    del line


def verify_bundle(path: Path, *, detail: Detail = _silent) -> Verified:
    """Check a bundle, a folder or an archive of one: schema, digests, golden outputs.

    Raises:
        BadInput: there is no bundle, or the archive is unsafe.
        VerificationFailed: the manifest, a file or an output is not what it must be; the line names it.
        OutsideFailure: the runtime is missing or fails.
    """
    with open_bundle(path) as bundle:
        detail("checking the manifest and the files")
        manifest = _read_or_fail(bundle)
        notes = check_files(bundle, manifest)
        detail("comparing the golden outputs")
        found = run_own_runner(bundle, ["--check", "--json"], seconds=CHECK_SECONDS, detail=detail)
    return Verified(
        manifest=manifest, samples=found["samples"], lowest_snr_db=found["lowest_snr_db"], notes=notes
    )


def _read_or_fail(bundle: Path) -> Manifest:
    try:
        return read_manifest(bundle)
    except BadInput as error:
        if not (bundle / FILE).is_file():
            raise
        raise VerificationFailed(error.what, where=error.where, todo=error.todo) from error


def bench(
    bundle: Path,
    *,
    mode: Mode,
    threads: int | None = None,
    sustained_s: float | None = None,
    detail: Detail = _silent,
) -> dict[str, Any]:
    """Time a bundle on this machine by the protocol `mode`.

    Args:
        bundle: the folder or the archive.
        mode: "quick" (about 10 s), "standard" (a minute) or "strict" (ten).
        threads: that one inference may use; what the bundle asks for when None.
        sustained_s: measure for so many seconds instead, and give the percentiles of the steady state.
        detail: takes the lines of progress.

    Returns:
        The record of schema "edgekit.bench/1", raw samples included.

    Raises:
        BadInput: there is no bundle, or more threads are asked for than there are cores.
        VerificationFailed: a file or a golden output is not what the manifest says.
        OutsideFailure: the runtime is missing, crashes or hangs.
    """
    options, seconds = bench_options(mode, threads, sustained_s)
    with open_bundle(bundle) as folder:
        read_manifest(folder)
        return run_own_runner(folder, options, seconds=seconds, detail=detail)


def bench_options(mode: Mode, threads: int | None, sustained_s: float | None) -> tuple[list[str], float]:
    """The options of `run.py` for a benchmark, and the seconds after which it hangs."""
    options = ["--bench", *([] if mode == "standard" else [f"--{mode}"])]
    options += [] if threads is None else ["--threads", str(threads)]
    if sustained_s is None:
        return options, SECONDS[mode]
    return [*options, "--sustained", f"{sustained_s:g}"], SECONDS["standard"] + sustained_s


def measure_memory(bundle: Path) -> dict[str, Any]:
    """Memory of a process that does nothing but load the bundle's artifact and run its golden inputs.

    Returns:
        `before_load_rss_mb` (Python, numpy and the runtime) and `peak_rss_mb`; None where the system does
        not tell.

    Raises:
        EdgekitError: as for `bench`.
    """
    with open_bundle(bundle) as folder:
        read_manifest(folder)
        return run_own_runner(folder, ["--memory"], seconds=CHECK_SECONDS, detail=_silent)


def cost_of(record: Mapping[str, Any]) -> Cost:
    """The figures of a benchmark's record: latency as far as its runs can carry it, memory and size."""
    facts, protocol, latency, memory = (record[key] for key in ("facts", "protocol", "latency", "memory"))
    machine = f"{facts['board'] or facts['cpu_model'] or 'an unknown machine'} ({facts['fingerprint'][:12]})"
    done = f"protocol {protocol['mode']}, {protocol['runs']} runs, {count(protocol['threads'], 'thread')}"
    found = {f"latency_{name}_ms": latency[f"{name}_ms"] for name in ("p50", "p90", "p99")}
    found |= {"peak_memory_mb": memory["peak_rss_mb"], "size_mb": memory["artifact_mb"]}
    how: How = "emulated" if facts["emulated"] else "measured"
    return Cost(
        **{
            name: Figure(value=value, how=how, source=f"{machine}; {done}")
            for name, value in found.items()
            if value is not None
        }
    )


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write the record of a benchmark as JSON, raw samples included, whole or not at all.

    Raises:
        OutsideFailure: the file cannot be written.
    """
    with written_whole(path, todo="give another place with `--report`") as half:
        half.write_text(json.dumps(result, allow_nan=False) + "\n")
