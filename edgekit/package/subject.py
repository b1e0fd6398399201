"""What every package format asks of a bundle: a name that its world allows, its files, its packages."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.check import check_files
from edgekit.bundle.manifest import FILE, Manifest, read_manifest
from edgekit.devices.visit import digest
from edgekit.devices.wheels import wheels_for
from edgekit.errors import BadInput
from edgekit.package.layer import Content, files_below

PROGRAMS = ("run.py",)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A bundle that is to be packaged; its files were checked.

    Attributes:
        folder: where it lies.
        version: of the package: that which the user gives, with the digest of the manifest behind it.
    """

    folder: Path
    manifest: Manifest
    version: str

    @property
    def name(self) -> str:
        """In lower case letters, digits and `-`: what Debian, container images and wheels all allow."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.manifest.name.lower()).strip("-")
        return plain if len(plain) > 1 and plain[0].isalpha() else f"model-{plain}".rstrip("-")

    @property
    def summary(self) -> str:
        """One line."""
        device, runtime = self.manifest.device, self.manifest.runtime
        return f"Neural network {self.name} for {device.target}, run by {runtime.name} {runtime.version}"

    def files(self, place: str) -> dict[str, Content]:
        """The bundle's files below `place`."""
        return {
            f"{place}/{name}": Content(self.folder / name, name in PROGRAMS)
            for name in (FILE, *sorted(self.manifest.files))
        }


def subject_of(folder: Path, version: str) -> Subject:
    """The bundle in `folder` as a subject.

    Raises:
        BadInput: it is no bundle, or the version is none.
        VerificationFailed: a file is not what the manifest says.
    """
    if not re.fullmatch(r"\d+(\.\d+){0,3}", version):
        raise BadInput(f"`{version[:60]}` is no version", where="--version", todo="write for example 1.2.0")
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return Subject(folder=folder, manifest=manifest, version=f"{version}+{digest(folder)}")


def site_packages(subject: Subject, python: str, glibc: str | None, place: str) -> dict[str, Content]:
    """The packages that the bundle needs, below `place`, as they lie in `site-packages` of a device.

    Args:
        subject: what is packaged.
        python: `3.11`; wheels are made for one minor version.
        glibc: of the system that it goes to.
        place: the folder there.

    Raises:
        OutsideFailure: one of them has no wheel for such a device, or none can be fetched.
    """
    manifest = subject.manifest
    wheels = wheels_for(manifest.requirements, arch=manifest.device.arch, python=python, glibc=glibc)
    found: dict[str, Content] = {}
    with tempfile.TemporaryDirectory(prefix="edgekit-site-") as scratch:
        site = Path(scratch) / "site"
        for path in wheels.values():
            unpack_wheel(path, site)
        for name, content in files_below(site, place).items():
            found[name] = Content(content.read(), content.executable)
    return found


def unpack_wheel(wheel: Path, site: Path) -> None:
    """Unpack a wheel into a `site-packages` of a system that is not this one, less programs and byte code."""
    from installer import install
    from installer.destinations import SchemeDictionaryDestination
    from installer.sources import WheelFile

    aside = site.with_name("bin")  # RECORD names it, so that it must not be called after this process
    schemes = {"purelib": str(site), "platlib": str(site)}
    schemes |= dict.fromkeys(("headers", "scripts", "data"), str(aside))
    with WheelFile.open(wheel) as source:
        destination = SchemeDictionaryDestination(schemes, "/usr/bin/python3", "posix")
        install(source, destination, {"INSTALLER": b"edgekit"})
    shutil.rmtree(aside, ignore_errors=True)
