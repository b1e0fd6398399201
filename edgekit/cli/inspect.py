"""`edgekit inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekit.cli.options import FILE, data_options, result_console


@click.command()
@click.argument("source", type=FILE)
@data_options
@click.option("--all", "all_layers", is_flag=True, help="List every layer, not the ten largest.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, every layer included.")
def inspect(source: str, all_layers: bool, as_json: bool, **options: Any) -> None:
    """Show a bundle or a model: layers, parameters, MACs, activation peak.

    SOURCE is a bundle (folder or archive), or anything that `edgekit build` takes.

    \b
    Example:
      edgekit inspect dist/digits-rpi4
      edgekit inspect model.onnx --input-shape 1x3x224x224 --json
    """
    from edgekit.bundle.archive import open_bundle
    from edgekit.cli.options import given_from
    from edgekit.inspection import inspect_bundle, inspect_model
    from edgekit.progress import Progress
    from edgekit.report.inspect_terminal import print_inspection
    from edgekit.result import as_json as plain

    with Progress(quiet=as_json).stage(f"read {source}"):
        if is_bundle(Path(source)):
            with open_bundle(Path(source)) as bundle:
                found = inspect_bundle(bundle)
        else:
            found = inspect_model(source, given_from(options))
    if as_json:
        click.echo(json.dumps({"schema": "edgekit.inspect/1", **plain(found)}, indent=2, allow_nan=False))
    else:
        print_inspection(found, result_console(), all_layers=all_layers)


def is_bundle(path: Path) -> bool:
    """Whether a path is meant as a bundle's folder or archive, not as a model: no model is a folder."""
    from edgekit.bundle.archive import SUFFIX

    return (path.is_dir() and not (path / "task.py").exists()) or path.name.endswith(SUFFIX)
