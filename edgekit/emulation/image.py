"""The image that imitated boards run: made from Debian's packages, or one that the user names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekit.cache import disk_trouble
from edgekit.emulation.board import PLATFORM, Board, cache_folder, folder
from edgekit.emulation.engine import reason
from edgekit.errors import BadInput, OutsideFailure

NAME = "edgekit/arm64"
CHOSEN = "edgekit/base"  # the tag is the target's name
PROGRAMS = ("debian.py", "mkimage.py")
DEBIAN_NAMES = {"aarch64": "arm64", "armv7l": "armhf", "x86_64": "amd64"}
SECONDS = 600
LOOK = "import json, platform, sys; print(json.dumps([platform.machine(), list(sys.version_info[:2])]))"
OLDEST = (3, 8)
Detail = Callable[[str], None]


def image_of(client: Any, board: Board, detail: Detail) -> str:
    """The name of the image for a board: the one chosen for it, else the one made from Debian's packages.

    Raises:
        OutsideFailure: it is not there and cannot be made.
    """
    return chosen(client, board.name) or made(client, detail)


def chosen(client: Any, target_name: str) -> str | None:
    """The image that the user chose for a target by `choose`."""
    name = f"{CHOSEN}:{target_name}"
    return name if _is_there(client, name) else None


def made(client: Any, detail: Detail, packages: Sequence[str] = ()) -> str:
    """The name of the image made from Debian's packages, which is made where it is not there.

    Args:
        client: the engine.
        detail: takes the lines of progress.
        packages: more of them than `docker/mkimage.py` takes; none that these need comes along.

    Raises:
        OutsideFailure: the packages cannot be fetched, or the engine does not take the image.
    """
    tag = made_tag(packages)
    if not _is_there(client, tag):
        with disk_trouble(cache_folder()):
            _make(client, tag, packages, detail)
    return tag


def made_tag(packages: Sequence[str] = ()) -> str:
    """The name of that image: another where the programs that make it or the packages are others."""
    programs = b"".join((folder() / name).read_bytes() for name in PROGRAMS)
    content = programs + "".join(f"\n{name}" for name in packages).encode()
    return f"{NAME}:{hashlib.sha256(content).hexdigest()[:12]}"


def _make(client: Any, tag: str, packages: Sequence[str], detail: Detail) -> None:
    from docker.errors import DockerException

    detail("making the image from Debian's packages")
    with _archive("arm64", tag, packages) as archive:
        detail("giving the image to the engine")
        try:
            with archive.open("rb") as file:
                client.images.load(file)
        except DockerException as error:
            raise OutsideFailure(f"the engine refuses it: {reason(error)}", where=tag) from error


def base_layer(arch: str) -> bytes:
    """The tar of the root file system that the image has, for any architecture of `Profile.arch`.

    Raises:
        OutsideFailure: Debian's packages cannot be fetched.
    """
    with (
        disk_trouble(cache_folder()),
        _archive(DEBIAN_NAMES[arch], f"edgekit/{arch}", ()) as archive,
        tarfile.open(archive) as image,
    ):
        listed = json.loads(_member(image, "manifest.json"))
        return _member(image, listed[0]["Layers"][0])


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()


@contextlib.contextmanager
def _archive(arch: str, tag: str, packages: Sequence[str]) -> Iterator[Path]:
    """The image's archive as `docker load` takes it; it lasts as long as the block.

    Raises:
        OutsideFailure: the refusal of `docker/mkimage.py`.
    """
    cache = cache_folder() / "debian"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as scratch:
        archive = Path(scratch) / "image.tar"
        command = [sys.executable, str(folder() / "mkimage.py"), arch, "--tag", tag, "-o", str(archive)]
        command += ["--cache", str(cache), *(word for name in packages for word in ("--package", name))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise OutsideFailure(f"was not made in {SECONDS} s", where=tag, todo="try again") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            what, _, todo = (lines[-1] if lines else "no message").removeprefix("error: ").partition("; ")
            raise OutsideFailure(what, where=tag, todo=todo or None)
        yield archive


def choose(client: Any, board: Board, reference: str, detail: Detail) -> str:
    """Take an image that the user names as the one of a board, after it was run once.

    Args:
        client: the engine, whose kernel can run the image.
        board: whose it will be.
        reference: as `docker pull` takes it; it is pulled where it is not there for arm64.
        detail: takes the lines of progress.

    Raises:
        BadInput: it has no Python that is new enough.
        OutsideFailure: there is no such image, or it cannot be pulled.
    """
    image = _found(client, reference) or _pulled(client, reference, detail)
    detail(f"running {reference} once")
    _look_into(client, board, image, reference)
    image.tag(CHOSEN, board.name)
    return f"{CHOSEN}:{board.name}"


def unchoose(client: Any, target_name: str) -> None:
    """Go back from a chosen image to the one made from Debian's packages."""
    if name := chosen(client, target_name):
        client.images.remove(name)


def _found(client: Any, reference: str) -> Any:
    """The image of that name if the engine has it for arm64."""
    from docker.errors import APIError, ImageNotFound

    try:
        image = client.images.get(reference)
    except ImageNotFound:
        return None
    except APIError as error:
        raise BadInput(f"is no name of an image: {reason(error)}", where=f"--base {reference}") from error
    return image if image.attrs.get("Architecture") == "arm64" else None


def _pulled(client: Any, reference: str, detail: Detail) -> Any:
    from docker.errors import DockerException
    from docker.utils import parse_repository_tag

    detail(f"pulling {reference}")
    repository, tag = parse_repository_tag(reference)
    try:
        client.images.pull(repository, tag=tag or "latest", platform=PLATFORM)
    except DockerException as error:
        what = f"cannot be pulled for {PLATFORM}: {reason(error)}"
        raise OutsideFailure(what, where=f"--base {reference}") from error
    image = _found(client, reference)
    if image is None:
        raise OutsideFailure(f"has nothing for {PLATFORM}", where=f"--base {reference}", todo="name another")
    return image


def _look_into(client: Any, board: Board, image: Any, reference: str) -> None:
    from docker.errors import ContainerError, DockerException

    where = f"--base {reference}"
    try:
        printed = client.containers.run(
            image.id, ["python3", "-c", LOOK], entrypoint=[], init=True, remove=True, network_mode="none",
            cap_drop=["ALL"], environment={"QEMU_CPU": board.cpu}, labels=["edgekit"],
            volumes={str(board.cpuinfo.resolve()): {"bind": "/proc/cpuinfo", "mode": "ro"}},
        )  # fmt: skip
        machine, version = json.loads(printed)
    except ContainerError as error:
        said = (error.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        what = f"its python3 ends with status {error.exit_status}: {said[-1] if said else 'no message'}"
        raise BadInput(what, where=where, todo="name an image that has Python") from error
    except DockerException as error:
        raise BadInput(f"its python3 does not run: {reason(error)}", where=where) from error
    if machine != "aarch64" or tuple(version) < OLDEST:
        what = f"has Python {version[0]}.{version[1]} for {machine}"
        raise BadInput(what, where=where, todo="name one with Python 3.8 or newer for arm64")


def size_mb(client: Any, name: str) -> float | None:
    """What an image takes on disk, 10^6 bytes; None where it is not there."""
    from docker.errors import ImageNotFound

    try:
        return float(client.images.get(name).attrs["Size"]) / 1e6
    except ImageNotFound:
        return None


def _is_there(client: Any, name: str) -> bool:
    return size_mb(client, name) is not None
