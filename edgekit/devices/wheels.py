"""The wheels that a device needs, fetched on this machine for its Python, processor and glibc."""

from __future__ import annotations

import contextlib
import email
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from edgekit.bundle.manifest import Manifest
from edgekit.cache import default_root, digest_file, digest_of, disk_trouble
from edgekit.devices.device import Detail
from edgekit.devices.pip_here import TooLarge, bundled_wheel, environment, run_pip
from edgekit.devices.wheel_tags import USUAL_FIRST, Place, fits
from edgekit.errors import OutsideFailure, clean
from edgekit.files import written_whole
from edgekit.ondevice.remote.pip import QUIET, Complaint, complaint

FOLDER = "wheels/"  # of a bundle
ANY_GLIBC = "2.99"
MOST_MB = 3000.0  # of one set of wheels; a bundle's archive holds 4000
MOST_BYTES = 10_000_000_000  # of the cache


def _quietly(line: str) -> None:
    """Show no progress."""
    del line


def wheels_for(
    requirements: Mapping[str, str],
    *,
    arch: str,
    python: str,
    glibc: str | None,
    detail: Detail = _quietly,
) -> dict[str, Path]:
    """The wheels of these packages and of all that they need, by file name; fetched once.

    Args:
        requirements: exact versions.
        arch: of the device's userland, in Linux's words: "aarch64", "armv7l", "x86_64".
        python: its version, "3.11.2" or "3.11".
        glibc: its version, "2.36"; None where it has another C library.
        detail: takes the lines of progress.

    Raises:
        OutsideFailure: no wheel fits the device, the index cannot be reached, or the disk is full.
    """
    if glibc is None:
        what = "the device has no glibc, and edgekit fetches no wheels for another C library"
        raise OutsideFailure(
            what, where="--offline", todo="leave it out, or use a system with glibc (Debian)"
        )
    pins = sorted(f"{name}=={version}" for name, version in requirements.items())
    return _fetched(pins, Place(arch=arch, python=python, glibc=glibc), detail)


def installer_for(*pythons: str) -> Path:
    """A wheel of pip that runs on all these versions of Python: the one that came with ours, or another.

    Raises:
        OutsideFailure: ours does not run on them, and no other can be fetched.
    """
    ours, asks = _our_installer()
    if ours and _knows(ours, pythons) and all(asks.contains(python) for python in pythons):
        return ours
    oldest = min(pythons, key=Version)
    try:
        place = Place(arch="x86_64", python=oldest, glibc=f"2.{USUAL_FIRST}")
        found = _fetched(["pip"], place, _quietly)
    except OutsideFailure:
        if ours and asks.contains(oldest):  # not made for so new a Python, and likely to do
            return ours
        raise
    return next(iter(found.values()))


def _our_installer() -> tuple[Path | None, SpecifierSet]:
    """The wheel of pip that came with our Python, and the Pythons that it is for."""
    try:
        wheel = bundled_wheel()
    except OutsideFailure:
        return None, SpecifierSet()
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        asks = email.message_from_bytes(archive.read(name))["Requires-Python"] or ""
    return wheel, SpecifierSet(asks)


def _knows(installer: Path, pythons: Sequence[str]) -> bool:
    """Whether this pip is younger than these Pythons: its number is a year; 3.8 is of 2019, 3.9 of 2020."""
    newest = max(int(python.split(".")[1]) for python in pythons)
    return parse_wheel_filename(installer.name)[1] >= Version(f"{newest + 11}.2")


def in_bundle(
    bundle: Path, manifest: Manifest, *, arch: str, python: str, glibc: str | None
) -> dict[str, Path]:
    """The wheels that lie in a bundle and fit a device, by file name; none unless all that it requires do.

    Args:
        bundle: the folder; its files were checked.
        manifest: of it.
        arch: as for `wheels_for`.
        python: as for `wheels_for`.
        glibc: as for `wheels_for`.
    """
    if glibc is None:
        return {}
    place = Place(arch=arch, python=python, glibc=glibc)
    names = [Path(name).name for name in manifest.files if name.startswith(FOLDER)]
    found = [name for name in names if fits(name, place)]
    packages = {parse_wheel_filename(name)[0] for name in found}
    if not packages.issuperset(canonicalize_name(name) for name in manifest.requirements):
        return {}
    return {name: bundle / FOLDER / name for name in found}


def _fetched(pins: Sequence[str], place: Place, detail: Detail) -> dict[str, Path]:
    """The wheels of these pins, from the cache where they are in it."""
    root = default_root().parent / "wheels"
    sources = {key: value for key, value in environment().items() if key.startswith("PIP_")}
    key = digest_of({"pins": list(pins), "place": place.markers, "glibc": place.glibc, "sources": sources})
    record = root / "sets" / f"{key}.json"
    with disk_trouble(root):
        if found := _known(record, root):
            return found
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=root) as folder:
            _download(pins, place, Path(folder), detail)
            digests = {wheel.name: _keep(wheel, root) for wheel in sorted(Path(folder).glob("*.whl"))}
        with written_whole(record) as half:
            half.write_text(json.dumps(digests))
        found = _paths(digests, root)
        _evict(root, keep=set(found.values()))
    return found


def _known(record: Path, root: Path) -> dict[str, Path]:
    """The wheels of a set that was fetched before; none when one of them is not what it was."""
    try:
        found = _paths(json.loads(record.read_text()), root)
        whole = all(digest_file(path) == path.parent.name for path in found.values())
    except (OSError, ValueError, AttributeError):
        return {}
    if not whole:
        return {}
    for path in found.values():
        with contextlib.suppress(OSError):  # a cache that may only be read is of use too
            os.utime(path)
    return found


def _paths(digests: Mapping[str, str], root: Path) -> dict[str, Path]:
    return {name: root / "files" / digest / name for name, digest in digests.items()}


def _keep(wheel: Path, root: Path) -> str:
    """Move a wheel into the cache; its digest, by which sets share it."""
    digest = digest_file(wheel)
    place = root / "files" / digest / wheel.name
    place.parent.mkdir(parents=True, exist_ok=True)
    wheel.replace(place)
    return digest


def _evict(root: Path, keep: set[Path]) -> None:
    """Drop the wheels that were used longest ago until the rest fits; sets without them are fetched again."""
    found = [(path.stat().st_mtime, path.stat().st_size, path) for path in root.glob("files/*/*.whl")]
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > MOST_BYTES and path not in keep:
            path.unlink(missing_ok=True)


def _download(pins: Sequence[str], place: Place, folder: Path, detail: Detail) -> None:
    try:
        status, said = _ask(pins, place, folder, detail)
    except TooLarge as error:
        what = f"{', '.join(pins)} and what they need take more than {MOST_MB:.0f} MB"
        todo = "PyTorch brings CUDA along: name an index with a CPU build by PIP_EXTRA_INDEX_URL"
        raise OutsideFailure(what, where="--offline", todo=todo) from error
    if status:
        raise _refusal(complaint(said), place, folder)


def _ask(pins: Sequence[str], place: Place, folder: Path, detail: Detail) -> tuple[int, str]:
    """`pip download` for another place: its status and what it said."""
    options = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", place.python]
    options += ["--abi", "cp{}{}".format(*place.minor)]
    options += [word for name in place.platforms for word in ("--platform", name)]
    arguments = ["download", *QUIET, "--dest", str(folder), *options, *pins]
    return run_pip(arguments, there=place.markers, most_mb=MOST_MB, detail=detail)


def _refusal(failed: Complaint, place: Place, folder: Path) -> OutsideFailure:
    if failed.kind == "fit":
        return _none_fits(failed, place, folder)
    todo = {
        "network": "connect this machine, or name a reachable index by PIP_INDEX_URL",
        "clock": "set the clock of this machine",
        "disk": "free some space, or set EDGEKIT_CACHE to another folder",
    }
    return OutsideFailure(clean(failed.what, 300), where="fetching packages", todo=todo.get(failed.kind))


def _none_fits(failed: Complaint, place: Place, folder: Path) -> OutsideFailure:
    version = failed.pin.removeprefix("==")
    newest = f"; the newest that does is {failed.versions[-1]}" if failed.versions else ""
    anywhere = Place(arch=place.arch, python=place.python, glibc=ANY_GLIBC)
    # `===` takes a word that is no version, so pip lists what there is and fetches nothing.
    elsewhere = complaint(_ask([f"{failed.package}===none"], anywhere, folder, _quietly)[1])
    why = ", its wheels want a newer one" if version in elsewhere.versions else ""
    what = f"no wheel fits {place}{why}{newest}"
    todo = "pin a version that fits in the target's `requirements`"
    todo += " and build again, or use a newer system on the device" if why else " and build again"
    return OutsideFailure(what, where=f"{failed.package} {version}", todo=todo)
