"""Look at a device before anything is done there: which Pythons it has, and what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.devices.device import Device, Done, run
from edgekit.devices.program import call
from edgekit.errors import OutsideFailure, clean

Facts = dict[str, Any]

OLDEST = (3, 8)
NEWEST_MINOR = 15
PARTS = ("runner/facts", "runner/contamination")
SILENCE_S = 180.0  # several starts of Python on a busy emulator
_SYSTEM, _PYTHON = "edgekit-system ", "edgekit-python "
# Runs on Python 2.7 and newer; holds no single quotes and no dollars, so that every shell leaves it alone.
_SELF = f"""
import json, os, sys
name = getattr(getattr(sys, "implementation", None), "name", "cpython")
try:
    from importlib.util import find_spec
    venv = all(find_spec(part) for part in ("venv", "ensurepip"))
except Exception:
    venv = False
print("{_PYTHON}" + json.dumps({{
    "path": sys.executable or sys.argv[1],
    "real": os.path.realpath(sys.executable or sys.argv[1]),
    "version": list(sys.version_info[:3]),
    "bits": 64 if sys.maxsize > 2 ** 32 else 32,
    "implementation": name,
    "venv": venv,
}}))
"""
_NAMES = " ".join([*(f"python3.{minor}" for minor in range(NEWEST_MINOR, 7, -1)), "python3", "python"])
_LOOK = f"""
echo "{_SYSTEM}$(uname -s)"
limit=
timeout 60 true 2>/dev/null && limit="timeout 60"
code=$1 seen=:
set -f
IFS=:
set -- $PATH /usr/bin /usr/local/bin "$HOME/.local/bin"
unset IFS
for folder do
  for name in {_NAMES}; do
    file=$folder/$name
    [ -f "$file" ] && [ -x "$file" ] || continue
    real=$(readlink -f "$file" 2>/dev/null) || real=$file
    case $seen in *":$real:"*) continue ;; esac
    seen=$seen$real:
    $limit "$file" -E -s -c "$code" "$file" 2>/dev/null </dev/null
  done
done
exit 0
"""


@dataclass(frozen=True)
class PythonThere:
    """A Python of a device.

    Attributes:
        path: absolute, as it calls itself.
        version: "3.11.2".
        bits: of its pointers.
        venv: whether it can make environments with pip in them; Debian's needs the package python3-venv.
    """

    path: str
    version: str
    bits: int
    venv: bool = True

    @property
    def minor(self) -> str:
        """The version that wheels are made for: "3.11"."""
        return ".".join(self.version.split(".")[:2])


def find_pythons(device: Device) -> list[PythonThere]:
    """Every CPython of a device that can run edgekit's programs, newest first.

    Looked for on PATH, in /usr/bin, /usr/local/bin and ~/.local/bin.

    Raises:
        OutsideFailure: there is none of version 3.8 or newer, or the device has no Linux.
        ConnectionLost: the device cannot be reached any more.
    """
    done = run(device, ["sh", "-c", _LOOK, "sh", _SELF], silence=SILENCE_S)
    found = list(_found(done, device.name))
    usable = [one for one in found if _number(one) >= OLDEST and one["implementation"] == "cpython"]
    if not usable:
        raise _none_usable(found, device.name)
    pythons = [
        PythonThere(path=one["path"], version=_version(one), bits=one["bits"], venv=one["venv"])
        for one in usable
    ]
    return sorted(pythons, key=_rank, reverse=True)


def probe(device: Device, python: str, *, pythons: Sequence[PythonThere] | None = None) -> Facts:
    """What the device is and how it is doing, by a program that changes nothing.

    Args:
        device: where.
        python: the device's, to run the program.
        pythons: from `find_pythons`; looked for again if None.

    Raises:
        OutsideFailure: the program fails there.
        ConnectionLost: the device cannot be reached any more.
    """
    pythons = find_pythons(device) if pythons is None else pythons
    paths = [one.path for one in pythons]
    facts: Facts = call(device, python, "probe", paths, parts=PARTS, silence=SILENCE_S)
    packages = facts.pop("packages_of")
    facts["pythons"] = [{**asdict(one), "packages": packages[one.path]} for one in pythons]
    return facts


def choose_python(facts: Facts, wanted: Sequence[str]) -> PythonThere:
    """The device's newest Python that a bundle's packages exist for.

    Args:
        facts: from `probe`.
        wanted: minor versions, ["3.11", "3.13"]; any does if empty.

    Raises:
        OutsideFailure: there is none, or none of 64 bit on a machine of 64 bit.
    """
    fields = ("path", "version", "bits", "venv")
    pythons = [PythonThere(**{name: one[name] for name in fields}) for one in facts["pythons"]]
    fitting = [one for one in pythons if not wanted or one.minor in wanted]
    if not fitting:
        has = " and ".join(dict.fromkeys(one.minor for one in pythons)) or "no usable one"
        need = " or ".join(wanted)
        install = (
            f"install one there, for example `sudo apt-get install python{wanted[0]} python{wanted[0]}-venv`"
        )
        todo = f"{install}, or name the device's version in the target's `python` and build again"
        raise OutsideFailure(f"the device has Python {has}, the bundle needs {need}", todo=todo)
    wide = [one for one in fitting if one.bits >= facts["kernel_bits"] or facts["kernel_bits"] == 32]
    if not wide:
        what = f"the device has Python {fitting[0].minor} in 32 bit only, the bundle needs 64 bit"
        raise OutsideFailure(what, todo="install the 64-bit edition of its system")
    # One that can make an environment goes before a newer one that cannot.
    return max(wide, key=lambda one: (one.venv, _rank(one)))


def _rank(python: PythonThere) -> tuple[int, ...]:
    return tuple(int(part) for part in python.version.split("."))


def _found(done: Done, where: str) -> Iterator[dict[str, Any]]:
    """What the Pythons say of themselves, each once; refuses what is no Linux."""
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    systems = [line.removeprefix(_SYSTEM).strip() for line in lines if line.startswith(_SYSTEM)]
    if not systems:
        said = clean(done.stderr, 100) or f"status {done.status}"
        todo = "edgekit needs a device with Linux and a shell"
        raise OutsideFailure(f"cannot run `sh` there: {said}", where=where, todo=todo)
    if systems[0] != "Linux":
        what = f"its system is {clean(systems[0], 40) or 'unknown'}, not Linux"
        raise OutsideFailure(what, where=where, todo="edgekit runs bundles on devices with Linux")
    seen: set[str] = set()
    for line in lines:
        if not line.startswith(_PYTHON):
            continue
        one = _parsed(line.removeprefix(_PYTHON))
        if one is not None and one["real"] not in seen:
            seen.add(one["real"])
            yield one


def _parsed(text: str) -> dict[str, Any] | None:
    """One Python's answer; None when it is not whole."""
    kinds = {"path": str, "real": str, "version": list, "bits": int, "implementation": str, "venv": bool}
    try:
        one = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(one, dict) or any(not isinstance(one.get(key), kind) for key, kind in kinds.items()):
        return None
    whole = len(one["version"]) == 3 and all(type(part) is int for part in one["version"])
    return one if whole and one["path"].startswith("/") else None


def _number(one: dict[str, Any]) -> tuple[int, int]:
    return one["version"][0], one["version"][1]


def _version(one: dict[str, Any]) -> str:
    return ".".join(map(str, one["version"]))


def _none_usable(found: Sequence[dict[str, Any]], where: str) -> OutsideFailure:
    names = {"cpython": "Python"}
    shown = [
        f"{names.get(one['implementation'], one['implementation'])} {_version(one)} ({one['path']})"
        for one in found
    ]
    has = f"it has {clean(', '.join(shown), 200)}" if shown else "it has none"
    # Ubuntu 18.04, the system of the Jetson Nano, has 3.6 as python3 and 3.8 beside it.
    old = any(_number(one)[0] == 3 for one in found)
    packages = "python3.8 python3.8-venv" if old else "python3 python3-venv"
    what = f"no CPython 3.{OLDEST[1]} or newer is there: {has}"
    return OutsideFailure(what, where=where, todo=f"install one there: `sudo apt-get install {packages}`")
