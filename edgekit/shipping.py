"""From a candidate to its bundle: where it goes, what is packed, and that it appears whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path

from edgekit.bundle.archive import SUFFIX, write_archive
from edgekit.bundle.pack import Contents, write_bundle
from edgekit.bundle.place import fresh_folder, replace_folder
from edgekit.result import Tried
from edgekit.versions import versions
from edgekit.workshop import Workshop


def place_for(shop: Workshop) -> Path:
    """The bundle's folder when the user names none: `dist/TASK-TARGET`."""
    return Path("dist") / f"{plain_name(shop.task.name)}-{plain_name(shop.target.name)}"


def plain_name(text: str) -> str:
    """A text as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"


def ship(shop: Workshop, tried: Tried, place: Path, *, archive: bool) -> None:
    """Write the candidate's bundle to `place`, and its archive beside it.

    Raises:
        OutsideFailure: the disk is full or cannot be written.
    """
    with fresh_folder(place) as partial:
        pack(shop, tried, partial, name=place.name)
        replace_folder(partial, place)
    if archive:
        write_archive(place, place.with_name(place.name + SUFFIX))


def pack(shop: Workshop, tried: Tried, folder: Path, name: str = "bundle") -> None:
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
        ),
    )
