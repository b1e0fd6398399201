"""`edgekit sign`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The private key, or the .pub of one that the agent holds; left out: your first one in ~/.ssh.",
)
def sign(bundle: Path, key: Path | None) -> None:
    """Sign a bundle with your SSH key, so that devices can tell who made it.

    BUNDLE is a folder or an archive that `edgekit build` wrote. Its files are checked, and the signature of
    its manifest, which holds the digests of all other files, is put beside it as manifest.json.sig. It is
    ssh-keygen that signs, and asks for the key's passphrase.

    A device takes only what certain people signed when it has a file of allowed signers: allowed_signers in
    edgekit's folder there, or /etc/edgekit/allowed_signers. A line of it: NAME namespaces="edgekit" KEY.

    \b
    Example:
      edgekit sign dist/digits-rpi4
      edgekit sign dist/digits-rpi4.tar.gz --key ~/.ssh/release_ed25519
    """
    from edgekit.bundle.sign import sign_bundle

    signer = sign_bundle(bundle, key)
    click.echo(f"signed {bundle} with {signer.key}")
