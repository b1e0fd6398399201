"""From a candidate to its bundle: where it goes, what is packed, and that it appears whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.bundle.archive import SUFFIX, write_archive
from edgekit.bundle.pack import Contents, write_bundle
from edgekit.bundle.place import fresh_folder, replace_folder
from edgekit.devices.device import Detail
from edgekit.devices.wheels import installer_for, wheels_for
from edgekit.errors import BadInput
from edgekit.result import Tried
from edgekit.versions import versions
from edgekit.workshop import Workshop

if TYPE_CHECKING:
    from edgekit.target import Target


def place_for(shop: Workshop) -> Path:
    """The bundle's folder when the user names none: `dist/TASK-TARGET`."""
    return Path("dist") / f"{plain_name(shop.task.name)}-{plain_name(shop.target.name)}"


def plain_name(text: str) -> str:
    """A text as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"


def refuse_offline(target: Target) -> None:
    """Refuse a target whose wheels cannot be told; worth asking before hours of work.

    Raises:
        BadInput: it does not say which glibc its systems have.
    """
    if target.glibc is None:
        todo = "add it to the target, in quotes, as `ldd --version` on the device tells it"
        raise BadInput("is missing, and `--offline` needs it", where=f"{target.name}: glibc", todo=todo)


def offline_wheels(shop: Workshop, detail: Detail) -> dict[str, Path]:
    """The wheels of the runtime for each Python of the target, and that of pip, by file name.

    Args:
        shop: of the build; its runtime was chosen.
        detail: takes the lines of progress.

    Raises:
        BadInput: as for `refuse_offline`.
        OutsideFailure: a wheel that fits does not exist, or cannot be fetched.
    """
    target = shop.target
    refuse_offline(target)
    wheels: dict[str, Path] = {}
    for python in target.python:
        wheels |= wheels_for(
            target.requirements_for(shop.runtime),
            arch=target.profile.arch,
            python=python,
            glibc=target.glibc,
            detail=detail,
        )
    installer = installer_for(*target.python)
    return {**wheels, installer.name: installer}


def ship(
    shop: Workshop, tried: Tried, place: Path, *, archive: bool, wheels: Mapping[str, Path] | None = None
) -> None:
    """Write the candidate's bundle to `place`, and its archive beside it.

    Raises:
        OutsideFailure: the disk is full or cannot be written.
    """
    with fresh_folder(place) as partial:
        pack(shop, tried, partial, name=place.name, wheels=wheels)
        replace_folder(partial, place)
    if archive:
        write_archive(place, place.with_name(place.name + SUFFIX))


def pack(
    shop: Workshop,
    tried: Tried,
    folder: Path,
    name: str = "bundle",
    wheels: Mapping[str, Path] | None = None,
) -> None:
    """Write the candidate's bundle into a folder."""
    folder.mkdir(exist_ok=True)
    write_bundle(
        folder,
        Contents(
            name=name,
            artifact=shop.artifacts[tried.name],
            graph=shop.interface,
            parity_db=tried.parities[-1].snr_db if tried.parities else None,
            calls=shop.real_calls,
            target=shop.target,
            threads=tried.recipe.get("threads", shop.threads),
            recipe=tried.recipe,
            cost=tried.cost,
            here=tried.here,
            quality=tried.quality,
            versions=versions(),
            wheels=wheels or {},
        ),
    )
