"""`edgekit build`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from edgekit.cli.options import FILE, build_options, progress_from, request_from, result_console
from edgekit.errors import BudgetNotMet


@click.command()
@click.argument("source", type=FILE)
@build_options
@click.option(
    "--output", "-o", type=FILE, metavar="DIR", help="The bundle's folder; dist/TASK-TARGET when left out."
)
@click.option("--archive", is_flag=True, help="Write the bundle as one reproducible file too, DIR.tar.gz.")
@click.option(
    "--offline", is_flag=True, help="Put the device's packages into the bundle, for one without internet."
)
@click.option(
    "--recipe", type=FILE, metavar="FILE", help="Replay this recipe (YAML or JSON) instead of searching."
)
@click.option("--strict", is_flag=True, help="Succeed only if every limit was measured, none predicted.")
def build(source: str, strict: bool, offline: bool, **options: Any) -> None:
    """Compress, convert, verify and package a network for a target.

    SOURCE is a task file (task.py), path.py:factory, package.module:factory, a model file (.onnx, .pt2,
    TorchScript, .safetensors or .pth with --model-factory), timm/NAME or torchvision/NAME.

    Limits given here replace those of the target. The outcome is MET, PREDICTED, NOT MET or UNPROVEN; with
    the last two the nearest bundle is written all the same and the exit status is 3.

    \b
    Example:
      edgekit build examples/digits/task.py --target rpi4 -o dist/digits-rpi4
      edgekit build model.onnx --target rpi4 --calibration data.npz --latency p99:40ms --size 2MB
    """
    from edgekit.pipeline import build as run
    from edgekit.report.html import write_build_report
    from edgekit.report.json import build_json
    from edgekit.report.terminal import print_build

    request = replace(request_from(source, options), offline=offline)
    progress = progress_from(options)
    result = run(request, progress)
    report = result.bundle.with_name(f"{result.bundle.name}.build.html")
    write_build_report(result, report)
    if options["as_json"]:
        click.echo(build_json(result))
    else:
        print_build(result, result_console(), report=report)
    if result.outcome in ("NOT MET", "UNPROVEN") or (strict and result.outcome != "MET"):
        raise BudgetNotMet(
            f"the budget is {result.outcome}" + ("" if result.outcome != "PREDICTED" else ", not measured"),
            where=result.target,
            todo=result.relax[0] if result.relax else "measure the bundle on the device",
        )
