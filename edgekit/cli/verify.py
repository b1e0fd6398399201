"""`edgekit verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.bench import Verified


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def verify(bundle: Path, as_json: bool) -> None:
    """Check a bundle's digests, schema and golden outputs.

    BUNDLE is a folder or an archive, from anywhere: edgekit runs the network in it, and no program of it.
    The exit status is 5 when something is not what the manifest says; the line names it.

    \b
    Example:
      edgekit verify dist/digits-rpi4
      edgekit verify digits-rpi4.tar.gz --json
    """
    from edgekit.bench import verify_bundle
    from edgekit.progress import Progress

    progress = Progress(quiet=as_json)
    with progress.stage(f"verify {bundle}") as detail:
        found = verify_bundle(bundle, detail=detail)
    for note in found.notes:
        progress.warn(note)
    click.echo(_as_json(found) if as_json else _sentence(found))


def _sentence(found: Verified) -> str:
    manifest, lowest = found.manifest, found.lowest_snr_db
    agreement = "exactly" if lowest is None else f"to {lowest:.1f} dB"
    return (
        f"verified {manifest.name}: {len(manifest.files)} files have their digests, "
        f"{found.samples} golden samples agree {agreement} (at least {manifest.golden.min_snr_db:g} dB)"
    )


def _as_json(found: Verified) -> str:
    manifest = found.manifest
    return json.dumps(
        {
            "schema": "edgekit.verify/1",
            "name": manifest.name,
            "target": manifest.device.target,
            "files": len(manifest.files),
            "samples": found.samples,
            "lowest_snr_db": found.lowest_snr_db,
            "min_snr_db": manifest.golden.min_snr_db,
            "notes": list(found.notes),
        },
        indent=2,
    )
