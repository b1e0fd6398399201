"""`edgekit bench`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.devices import device_options, manner_from
from edgekit.errors import BadInput, BudgetNotMet, EdgekitError, OutsideFailure

if TYPE_CHECKING:
    from edgekit.bench import Mode
    from edgekit.bench_on import Found

Record = Mapping[str, Any]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@device_options
@click.option("--quick", is_flag=True, help="Take a few seconds.")
@click.option("--strict", is_flag=True, help="Take ten minutes or more, as MLPerf asks.")
@click.option("--sustained", metavar="TIME", help="Measure for so long, 10m, and judge by the steady state.")
@click.option("--count", is_flag=True, help="In an emulated container: count an inference's instructions.")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads of one inference.")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="The HTML report's place.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def bench(bundle: Path, report: Path | None, as_json: bool, **options: Any) -> None:
    """Measure a bundle's latency and memory, here or on devices.

    BUNDLE is a folder or an archive that `edgekit build` wrote. Its files and golden outputs are checked
    first. Timing takes a minute, and as many threads as the bundle asks for, unless options say otherwise.

    Without `--on` it runs on this machine. Over SSH it runs in an environment of its own in
    ~/.local/share/edgekit of the device, and goes on there when the connection breaks. In an emulated
    container nothing is timed: it shows that the bundle installs, starts, answers right and fits the memory.

    A report and the raw figures are written beside the bundle, as BUNDLE.bench.html and BUNDLE.bench.json,
    with the device's name before `.bench` where there is one; of a container the figures alone. Where a
    device is the bundle's target, the figures are held against the budget, and the exit status is 3 when
    they exceed it, or are too few to decide a limit; 4 when a device failed.

    \b
    Example:
      edgekit bench dist/digits-rpi4
      edgekit bench dist/digits-rpi4 --on ssh://pi@raspberrypi.local --offline
      edgekit bench dist/digits-rpi4 --on local --on container:rpi4 --count
      edgekit bench dist/digits-rpi4.tar.gz --quick --threads 1 --report bench.html
    """
    from edgekit.bench_on import Wanted, bench_all
    from edgekit.bundle.archive import open_bundle
    from edgekit.bundle.manifest import read_manifest
    from edgekit.devices.inventory import find_places
    from edgekit.progress import Progress
    from edgekit.quantity import parse_seconds

    sustained = options["sustained"]
    wanted = Wanted(
        mode=_mode(**{name: options[name] for name in ("quick", "strict")}, sustained=sustained),
        threads=options["threads"],
        sustained_s=parse_seconds(sustained, option="--sustained") if sustained else None,
        count=options["count"],
    )
    places = find_places(options["on"] or ("local",), options["inventory"])
    _refuse_combination(places, report, wanted.count)
    progress = Progress(quiet=as_json)
    with progress.stage(f"bench {bundle}") as detail, open_bundle(bundle) as folder:
        manifest = read_manifest(folder).model_dump(mode="json", by_alias=True)
        found = bench_all(folder, places, wanted, manner_from(options, progress), detail=detail)
        if len(found) == 1 and found[0].error is not None:
            raise found[0].error
    troubles = [_write(one, manifest, report or beside(bundle, one.place.name)) for one in found]
    if as_json:
        click.echo(_as_json(found))
    else:
        _print(found, manifest, [report or beside(bundle, one.place.name) for one in found])
    _fail_for(found, [trouble for trouble in troubles if trouble], manifest)


def _mode(*, quick: bool, strict: bool, sustained: str | None) -> Mode:
    if quick + strict + (sustained is not None) > 1:
        what = "`--quick`, `--strict` and `--sustained` exclude one another"
        raise BadInput(what, todo="give one of them")
    return "quick" if quick else "strict" if strict else "standard"


def _refuse_combination(places: Sequence[Any], report: Path | None, count: bool) -> None:
    if report is not None and report.suffix == ".json":
        raise BadInput("the report is HTML; the raw figures go beside it", where=f"--report {report}")
    if report is not None and len(places) > 1:
        what = "one file cannot hold the reports of several devices"
        raise BadInput(what, where="--report", todo="leave it out: each is written beside the bundle")
    if count and not any(place.address.kind == "container" for place in places):
        what = "instructions are counted in an emulated container only"
        raise BadInput(what, where="--count", todo="add for example `--on container:rpi4`")


def beside(bundle: Path, device: str = "local") -> Path:
    """The report's usual place: not in the bundle, whose folder holds what its manifest lists and no more."""
    from edgekit.bundle.archive import SUFFIX
    from edgekit.shipping import plain_name

    place = bundle if bundle.name not in ("", "..") else Path(os.path.abspath(bundle))  # noqa: PTH100 - `..` goes
    named = "" if device == "local" else f".{plain_name(device)}"
    return place.with_name(f"{place.name.removesuffix(SUFFIX)}{named}.bench.html")


def _write(found: Found, manifest: Record, page: Path) -> OutsideFailure | None:
    """Write both files; a failure is returned, so that the figures of a long run are shown all the same."""
    from edgekit.bench import write_result
    from edgekit.report.devices_table import is_emulated
    from edgekit.report.html import write_bench_report

    if found.record is None:
        return None
    try:
        if not is_emulated(found.record):
            write_bench_report(found.record, manifest, page)
        write_result(found.record, page.with_suffix(".json"))
    except OutsideFailure as trouble:
        return trouble
    return None


def _print(found: Sequence[Found], manifest: Record, pages: Sequence[Path]) -> None:
    from edgekit.cli.options import result_console
    from edgekit.report.bench_terminal import print_bench
    from edgekit.report.devices_table import is_emulated, print_devices
    from edgekit.report.emulated_terminal import print_emulated

    console = result_console()
    for one, page in zip(found, pages, strict=True):
        if one.record is None:
            continue
        if is_emulated(one.record):
            print_emulated(one.record, manifest, console)
        else:
            print_bench(one.record, manifest, console, report=page if page.exists() else None)
        if page.with_suffix(".json").exists():
            click.echo(f"figures: {page.with_suffix('.json')}")
    if len(found) > 1:
        rows = [(one.place.name, one.record or one.error) for one in found]
        print_devices([(name, what) for name, what in rows if what is not None], manifest, console)


def _as_json(found: Sequence[Found]) -> str:
    """The record of the one device; of several, an object that holds a record or an error for each."""
    if len(found) == 1:
        return json.dumps(found[0].record, allow_nan=False)
    devices = [
        {"name": one.place.name, "address": str(one.place.address), "record": one.record}
        | ({"error": str(one.error), "exit_status": one.error.exit_status} if one.error else {})
        for one in found
    ]
    return json.dumps({"schema": "edgekit.devices/1", "devices": devices}, allow_nan=False)


def _fail_for(found: Sequence[Found], troubles: Sequence[EdgekitError], manifest: Record) -> None:
    """Raise what decides the exit status: a device's own failure, an unwritten file, an exceeded budget."""
    failed = [one for one in found if one.error is not None]
    if failed:
        worst = max((one.error for one in failed if one.error), key=lambda error: error.exit_status)
        names = ", ".join(one.place.name for one in failed)
        raise type(worst)(f"{len(failed)} of {len(found)} devices failed: {names}")
    if troubles:
        raise troubles[0]
    for one in found:
        if one.record is not None:
            _refuse_excess(one.record, manifest)


def _refuse_excess(record: Record, manifest: Record) -> None:
    """Fail where the figures are the target's, and exceed its budget or do not decide it."""
    from edgekit.report.bench_words import stand
    from edgekit.report.devices_table import is_emulated
    from edgekit.report.emulated_words import emulated_verdicts

    if is_emulated(record):
        reasons = [v.reason for v in emulated_verdicts(record, manifest) if v.status == "NOT MET"]
    else:
        missed = ("NOT MET", "UNPROVEN")
        reasons = [v.reason for v in stand(record, manifest).verdicts if v.status in missed]
    if reasons:
        raise BudgetNotMet("; ".join(reasons), where=f"the budget of {manifest['device']['target']}")
