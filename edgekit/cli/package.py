"""`edgekit package`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekit.package.subject import Subject

FORMATS = ("oci", "deb", "wheel", "tar")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="What to make.")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="The file's place.")
@click.option(
    "--version",
    default="1.0",
    show_default=True,
    metavar="N.N",
    help="Of the package; the digest of the bundle is put behind it.",
)
@click.option("--python", metavar="3.N", help="Of deb: the device's Python; left out: the bundle's first.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def package(
    bundle: Path, kind: str, output: Path | None, version: str, python: str | None, as_json: bool
) -> None:
    """Make a bundle into what a system installs.

    BUNDLE is a folder or an archive that `edgekit build` wrote. oci is a container image for the bundle's
    architecture, which serves the network; deb a Debian package with a command and a systemd unit; wheel a
    Python package with predict(); tar the archive that `edgekit build --archive` writes. oci and deb hold
    the Python packages that the bundle needs.

    \b
    Example:
      edgekit package dist/digits-rpi4 --format oci && docker load -i digits-rpi4.oci.tar
      edgekit package dist/digits-rpi4 --format deb --version 1.2.0
    """
    from edgekit.bundle.archive import open_bundle
    from edgekit.package.subject import subject_of
    from edgekit.progress import Progress

    with Progress(quiet=as_json).stage(f"package {bundle} as {kind}"), open_bundle(bundle) as folder:
        subject = subject_of(folder, version)
        path = output or Path(_usual_name(subject, kind))
        name = _write(subject, kind, path, python)
    size_mb = path.stat().st_size / 1e6
    if as_json:
        result = {"schema": "edgekit.package/1", "format": kind, "file": str(path), "name": name}
        click.echo(json.dumps({**result, "version": subject.version, "size_mb": round(size_mb, 6)}))
        return
    click.echo(f"{path}: {size_mb:.1f} MB")
    click.echo(f"next: {_next(kind, path, name)}")


def _usual_name(subject: Subject, kind: str) -> str:
    from edgekit.bundle.archive import SUFFIX
    from edgekit.package.deb import ARCHITECTURES
    from edgekit.package.wheel import wheel_name

    arch = ARCHITECTURES[subject.manifest.device.arch]
    return {
        "oci": f"{subject.name}.oci.tar",
        "deb": f"{subject.name}_{subject.version}_{arch}.deb",
        "wheel": wheel_name(subject),
        "tar": f"{subject.name}{SUFFIX}",
    }[kind]


def _write(subject: Subject, kind: str, path: Path, python: str | None) -> str:
    """Write the package; returns what the system will call it."""
    from edgekit.bundle.archive import write_archive
    from edgekit.errors import BadInput
    from edgekit.package.deb import write_deb
    from edgekit.package.oci import write_oci
    from edgekit.package.wheel import write_wheel

    if python is not None and kind != "deb":
        raise BadInput("only a Debian package is made for one Python", where="--python", todo="leave it out")
    if kind == "oci":
        return write_oci(subject, path)
    if kind == "deb":
        return write_deb(subject, path, python or subject.manifest.device.python[0])
    if kind == "wheel":
        return write_wheel(subject, path)
    write_archive(subject.folder, path)
    return subject.manifest.name


def _next(kind: str, path: Path, name: str) -> str:
    """What to type on the device."""
    return {
        "oci": f"docker load -i {path} && docker run --rm {name} --check",
        "deb": f"sudo apt-get install ./{path.name} && {name} --check",
        "wheel": f"pip install {path} && python -m {name} --check",
        "tar": f"tar xzf {path} && python3 {name}/run.py --check",
    }[kind]
