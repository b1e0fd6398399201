"""Where target and profile files lie, and what they say after `extends`: YAML to plain data.

What the keys mean is `edgekit.target`'s subject.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

from edgekit.errors import BadInput
from edgekit.near import nearest
from edgekit.yaml_file import read_mapping

Kind = Literal["target", "profile"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file's data with those of its parents merged in; `shown` is the path as people should read it.

    `origins` names the file of each key, by its path: `budget.size_mb`.
    """

    path: Path
    shown: str
    data: dict[str, Any]
    origins: dict[str, str]

    @property
    def name(self) -> str:
        """What `--target` and `extends` call it: the file's stem."""
        return self.path.stem


def folders(kind: Kind) -> list[Path]:
    """Where files of this kind are looked for, first place first."""
    config = os.environ.get("EDGEKIT_CONFIG")
    user = Path(config) if config else platformdirs.user_config_path("edgekit")
    package = Path(__file__).resolve().parent
    shipped = package / "data" / f"{kind}s"
    if not shipped.is_dir():  # a checkout, not a wheel
        shipped = package.parent / f"{kind}s"
    return [Path(f"{kind}s"), user / f"{kind}s", shipped]


def names(kind: Kind) -> list[str]:
    """Every name of this kind that can be asked for, sorted."""
    return sorted({path.stem for folder in folders(kind) for path in _files(folder)})


def load(kind: Kind, name: str) -> Found:
    """The data of `name`, a name to look up or the path of a file, with its parents merged in.

    Raises:
        BadInput: no such name or file, not YAML, or an `extends` that leads nowhere or in a circle.
    """
    return _resolve(kind, _find(kind, name, asker=None, seen=()), seen=())


def resolve_inline(
    kind: Kind, data: Mapping[str, Any], *, where: str, folder: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """The merged data of a mapping inside another file, at `where`, and the origins of what it inherits.

    Raises:
        BadInput: as for `load`.
    """
    return _merge_parent(kind, dict(data), asker=where, folder=folder, seen=())


def is_path(name: str) -> bool:
    """Whether the user means a file, not a name to look up."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def _files(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in paths if path.suffix in {".yaml", ".yml"} and _NAME.fullmatch(path.stem)]


def _find(kind: Kind, name: str, *, asker: str | None, seen: tuple[Path, ...]) -> Path:
    """The first file of that name which is not in `seen`: ./targets/rpi4.yaml may extend the shipped rpi4."""
    if is_path(name):
        candidates = [Path(name)]
    else:
        fits = _NAME.fullmatch(name)
        candidates = [
            path for folder in folders(kind) for path in _files(folder) if fits and path.stem == name
        ]
    if not candidates:
        known = names(kind)
        advice = (nearest(name, known), f"known {kind}s: {', '.join(known) or 'none'}")
        raise BadInput(f"there is no {kind} `{name[:64]}`", where=asker, todo=" ".join(filter(None, advice)))
    for path in candidates:
        if path.resolve() not in seen:
            return path
    chain = " -> ".join(path.stem for path in (*seen, candidates[0]))
    raise BadInput(f"goes round in a circle: {chain}", where=asker, todo="remove one of these `extends`")


def _resolve(kind: Kind, path: Path, *, seen: tuple[Path, ...]) -> Found:
    data = read(path)
    if data.pop("name", path.stem) != path.stem:
        raise BadInput(
            f"`name` differs from the name of the file, `{path.stem}`",
            where=f"{path}: name",
            todo="remove the key, or rename the file",
        )
    if kind == "target" and isinstance(data.get("profile"), str):
        data["profile"] = {"extends": data["profile"]}  # so that a child may change parts of it
    merged, inherited = _merge_parent(
        kind, data, asker=f"{path}: extends", folder=path.parent, seen=(*seen, path.resolve())
    )
    origins = {**inherited, **dict.fromkeys(_key_paths(data), str(path))}
    return Found(path=path, shown=str(path), data=merged, origins=origins)


def _key_paths(data: Mapping[str, Any]) -> Iterator[str]:
    for key, value in data.items():
        yield key
        if isinstance(value, dict):
            yield from (f"{key}.{below}" for below in _key_paths(value))


def _merge_parent(
    kind: Kind, data: dict[str, Any], *, asker: str, folder: Path, seen: tuple[Path, ...]
) -> tuple[dict[str, Any], dict[str, str]]:
    if "extends" not in data:
        return data, {}
    parent = data.pop("extends")
    if not isinstance(parent, str) or not parent:
        raise BadInput(f"must be the name of a {kind}", where=asker, todo="for example `extends: rpi4`")
    name = str(folder / parent) if is_path(parent) else parent
    found = _find(kind, name, asker=asker, seen=seen)
    resolved = _resolve(kind, found, seen=seen)
    return _merge(resolved.data, data), resolved.origins


def _merge(parent: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Own keys win, mapping by mapping; a figure is replaced whole: no value keeps another's source."""
    merged = dict(parent)
    for key, value in own.items():
        old = merged.get(key)
        whole = not isinstance(value, dict) or not isinstance(old, dict) or "source" in {*old, *value}
        merged[key] = value if whole else _merge(old, value)  # type: ignore[arg-type]
    return merged


def read(path: Path) -> dict[str, Any]:
    """A file's own keys, its `extends` not yet followed.

    Raises:
        BadInput: not readable as YAML, or no mapping.
    """
    return read_mapping(path, todo="`edgekit targets` lists the names, `edgekit targets schema` the keys")
