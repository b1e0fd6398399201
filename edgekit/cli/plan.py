"""`edgekit plan`."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.options import FILE, build_options, progress_from, request_from, result_console


@click.command()
@click.argument("source", type=FILE)
@build_options
def plan(source: str, **options: Any) -> None:
    """Show the candidates for a target with their predicted cost; builds nothing.

    \b
    Example:
      edgekit plan examples/digits/task.py --target rpi4
      edgekit plan model.onnx --target rpi-zero2w --input-shape 1x3x224x224 --json
    """
    from edgekit.pipeline import plan as run
    from edgekit.report.json import plan_json
    from edgekit.report.terminal import print_plan

    found = run(request_from(source, options), progress_from(options))
    if options["as_json"]:
        click.echo(plan_json(found))
    else:
        print_plan(found, result_console())
