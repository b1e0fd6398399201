"""The user's own devices by name: a YAML file of addresses, or of mappings with an `address`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from edgekit.devices.address import Address, parse_address
from edgekit.errors import BadInput, clean
from edgekit.near import nearest
from edgekit.yaml_file import read_mapping

ALL = "all"
KEYS = ("address", "offline")
EXAMPLE = "write `devices:` and below it `kitchen: ssh://pi@kitchen.local`"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device that the user asked for.

    Attributes:
        name: as reports call it: that of the inventory, else the address.
        offline: whether the inventory says that it has no internet.
    """

    name: str
    address: Address
    offline: bool = False


def usual_inventory() -> Path:
    """The file that is read when none is named."""
    config = os.environ.get("EDGEKIT_CONFIG")
    return (Path(config) if config else platformdirs.user_config_path("edgekit")) / "devices.yaml"


def read_inventory(path: Path) -> dict[str, Place]:
    """The devices of an inventory by their names, in the order of the file.

    Raises:
        BadInput: it cannot be read, or is not what the example shows; the line names the key.
    """
    data = read_mapping(path, todo=EXAMPLE)
    for key in data:
        if key != "devices":
            todo = nearest(key, ["devices"]) or EXAMPLE
            raise BadInput(f"unknown key `{clean(key, 60)}`", where=str(path), todo=todo)
    entries = data.get("devices")
    if not isinstance(entries, dict) or not entries:
        raise BadInput("names no devices", where=str(path), todo=EXAMPLE)
    return {name: _place(name, entry, f"{path}: devices.{name}") for name, entry in entries.items()}


def _place(name: str, entry: Any, where: str) -> Place:
    if not _NAME.fullmatch(name) or name in (ALL, "local"):
        what = f"`{clean(name, 60)}` cannot be the name of a device"
        raise BadInput(what, where=where, todo="letters, digits, - and _, neither `all` nor `local`")
    settings = {"address": entry} if isinstance(entry, str) else entry
    if not isinstance(settings, dict) or not isinstance(settings.get("address"), str):
        raise BadInput("says not where the device is", where=where, todo="write ssh://pi@raspberrypi.local")
    for key in settings:
        if key not in KEYS:
            todo = nearest(key, KEYS) or "known keys: address, offline"
            raise BadInput(f"unknown key `{clean(key, 60)}`", where=where, todo=todo)
    offline = settings.get("offline", False)
    if not isinstance(offline, bool):
        raise BadInput("must be true or false", where=f"{where}.offline")
    return Place(name=name, address=parse_address(settings["address"], where=where), offline=offline)


def find_places(asked: Sequence[str], inventory: Path | None) -> list[Place]:
    """The devices that `--on` names, each once, in that order.

    Args:
        asked: addresses, names of the inventory, or `all` for everything in it.
        inventory: the file; the usual one when None, if there is one.

    Raises:
        BadInput: a name that the inventory does not have, or what is neither name nor address.
    """
    known = _known(inventory)
    found: dict[str, Place] = {}
    for text in asked:
        if text == ALL:
            if not known:
                where, todo = str(inventory or usual_inventory()), EXAMPLE
                raise BadInput("there is no inventory", where=where, todo=todo)
            found.update(known)
        elif text in known:
            found[text] = known[text]
        elif _NAME.fullmatch(text) and text != "local":
            path = inventory or usual_inventory()
            lack = "" if path.exists() else ", a file that does not exist"
            what = f"there is no device `{clean(text, 60)}` in the inventory {path}{lack}"
            todo = nearest(text, [*known, "local"]) or "give an address: ssh://pi@raspberrypi.local"
            raise BadInput(what, where="--on", todo=todo)
        else:
            address = parse_address(text)
            found[str(address)] = Place(name=str(address), address=address)
    return list(found.values())


def _known(inventory: Path | None) -> dict[str, Place]:
    if inventory is not None:
        return read_inventory(inventory)
    usual = usual_inventory()
    return read_inventory(usual) if usual.exists() else {}
