"""`edgekit verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.errors import clean

if TYPE_CHECKING:
    from edgekit.bench import Verified
    from edgekit.bundle.sign import Signer


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--allowed-signers",
    "allowed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Demand the signature of one of these; the file is as `man ssh-keygen` describes it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def verify(bundle: Path, allowed: Path | None, as_json: bool) -> None:
    """Check a bundle's digests, schema, signature and golden outputs.

    BUNDLE is a folder or an archive, from anywhere: edgekit runs the network in it, and no program of it.
    The exit status is 5 when something is not what the manifest says; the line names it. Who signed it is
    told by the name in the file allowed_signers of your configuration folder, where there is one.

    \b
    Example:
      edgekit verify dist/digits-rpi4
      edgekit verify digits-rpi4.tar.gz --json --allowed-signers team_signers
    """
    from edgekit.bench import verify_bundle
    from edgekit.bundle.archive import open_bundle
    from edgekit.bundle.manifest import FILE
    from edgekit.bundle.sign import who_signed
    from edgekit.progress import Progress

    progress = Progress(quiet=as_json)
    with progress.stage(f"verify {bundle}") as detail, open_bundle(bundle) as folder:
        signer = who_signed(folder, allowed) if (folder / FILE).is_file() else None
        found = verify_bundle(folder, detail=detail)
    for note in found.notes:
        progress.warn(note)
    click.echo(_as_json(found, signer) if as_json else f"{_sentence(found)}\n{_signature(signer)}")


def _signature(signer: Signer | None) -> str:
    if signer is None:
        return "not signed"
    return f"signed by {clean(signer.name or 'an unknown key')}: {signer.key}"


def _sentence(found: Verified) -> str:
    manifest, lowest = found.manifest, found.lowest_snr_db
    agreement = "exactly" if lowest is None else f"to {lowest:.1f} dB"
    return (
        f"verified {manifest.name}: {len(manifest.files)} files have their digests, "
        f"{found.samples} golden samples agree {agreement} (at least {manifest.golden.min_snr_db:g} dB)"
    )


def _as_json(found: Verified, signer: Signer | None) -> str:
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
            "signature": None if signer is None else {"name": signer.name, "key": signer.key},
            "notes": list(found.notes),
        },
        indent=2,
    )
