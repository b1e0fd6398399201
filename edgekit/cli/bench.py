"""`edgekit bench`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.errors import BadInput, BudgetNotMet, OutsideFailure

if TYPE_CHECKING:
    from edgekit.bench import Mode

Record = Mapping[str, Any]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Take a few seconds.")
@click.option("--strict", is_flag=True, help="Take ten minutes or more, as MLPerf asks.")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads of one inference.")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="The HTML report's place.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def bench(
    bundle: Path, quick: bool, strict: bool, threads: int | None, report: Path | None, as_json: bool
) -> None:
    """Measure a bundle's latency and memory on this machine.

    BUNDLE is a folder or an archive that `edgekit build` wrote. Its files and golden outputs are checked
    first. Timing takes a minute, and as many threads as the bundle asks for, unless options say otherwise.

    A report and the raw figures are written beside the bundle, as BUNDLE.bench.html and BUNDLE.bench.json.
    Where this machine is the bundle's target, the figures are held against the budget, and the exit status
    is 3 when they exceed it, or are too few to decide a limit.

    \b
    Example:
      edgekit bench dist/digits-rpi4
      edgekit bench dist/digits-rpi4.tar.gz --quick --threads 1 --report bench.html
    """
    from edgekit.bench import bench as measure
    from edgekit.bundle.archive import open_bundle
    from edgekit.bundle.manifest import read_manifest
    from edgekit.progress import Progress

    mode, page = _mode(quick=quick, strict=strict), report or beside(bundle)
    if page.suffix == ".json":
        raise BadInput("the report is HTML; the raw figures go beside it", where=f"--report {page}")
    with Progress(quiet=as_json).stage(f"bench {bundle}") as detail, open_bundle(bundle) as folder:
        manifest = read_manifest(folder).model_dump(mode="json", by_alias=True)
        result = measure(folder, mode=mode, threads=threads, detail=detail)
    trouble = _write(result, manifest, page)
    if as_json:
        click.echo(json.dumps(result, allow_nan=False))
    else:
        _print(result, manifest, None if trouble else page)
    if trouble:
        raise trouble
    _refuse_excess(result, manifest)


def _mode(*, quick: bool, strict: bool) -> Mode:
    if quick and strict:
        raise BadInput("`--quick` and `--strict` exclude one another", todo="give one of them")
    return "quick" if quick else "strict" if strict else "standard"


def beside(bundle: Path) -> Path:
    """The report's usual place: not in the bundle, whose folder holds what its manifest lists and no more."""
    from edgekit.bundle.archive import SUFFIX

    place = bundle if bundle.name not in ("", "..") else Path(os.path.abspath(bundle))  # noqa: PTH100 - `..` goes
    return place.with_name(f"{place.name.removesuffix(SUFFIX)}.bench.html")


def _write(result: Record, manifest: Record, page: Path) -> OutsideFailure | None:
    """Write both files; a failure is returned, so that the figures of a long run are shown all the same."""
    from edgekit.bench import write_result
    from edgekit.report.html import write_bench_report

    try:
        write_bench_report(result, manifest, page)
        write_result(result, page.with_suffix(".json"))
    except OutsideFailure as trouble:
        return trouble
    return None


def _print(result: Record, manifest: Record, page: Path | None) -> None:
    from edgekit.cli.options import result_console
    from edgekit.report.bench_terminal import print_bench

    print_bench(result, manifest, result_console(), report=page)
    if page is not None:
        click.echo(f"figures: {page.with_suffix('.json')}")


def _refuse_excess(result: Record, manifest: Record) -> None:
    """Fail where the figures are the target's, and exceed its budget or do not decide it."""
    from edgekit.report.bench_words import stand

    missed = ("NOT MET", "UNPROVEN")
    reasons = [verdict.reason for verdict in stand(result, manifest).verdicts if verdict.status in missed]
    if reasons:
        raise BudgetNotMet("; ".join(reasons), where=f"the budget of {manifest['device']['target']}")
