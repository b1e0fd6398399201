"""The pip of this machine: how it is started, and its wheel, which devices get along with their packages."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgekit.errors import OutsideFailure
from edgekit.ondevice.remote.pip import index_environment

# pip evaluates `platform_machine == "x86_64"` in a package's needs for the machine that it runs on, whatever
# `--platform` says: here it is told of the device.
START = """
import json, runpy, sys
place, there = sys.argv[1:3]
sys.argv[:3] = ["pip"]
if place:
    sys.path.insert(0, place)
from pip._vendor.packaging import markers
here = markers.default_environment
markers.default_environment = lambda: {**here(), **json.loads(there)}
runpy.run_module("pip", run_name="__main__")
"""
DEBIAN = Path("/usr/share/python-wheels")
SIZE = re.compile(r"(?:Downloading|Using cached) (?P<what>\S+) \((?P<size>[\d.]+) (?P<unit>kB|MB|GB)\)")
UNITS = {"kB": 1e-3, "MB": 1.0, "GB": 1e3}


class TooLarge(Exception):
    """pip was ended because it had begun to fetch more than allowed."""


def run_pip(
    arguments: Sequence[str], *, there: Mapping[str, str], most_mb: float, detail: Callable[[str], None]
) -> tuple[int, str]:
    """Run pip for a device; its exit status and all that it said.

    Args:
        arguments: of pip.
        there: the device, as environment markers name it: `platform_machine`, ...
        most_mb: of downloads, in 10^6 bytes.
        detail: takes a line for each file that is fetched.

    Raises:
        TooLarge: more than `most_mb`.
        OutsideFailure: this Python has no pip.
    """
    command = [sys.executable, "-c", START, _own_place(), json.dumps(dict(there)), *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        said, total = [], 0.0
        for line in process.stdout or ():
            said.append(line)
            if match := SIZE.search(line):
                total += float(match["size"]) * UNITS[match["unit"]]
                if not match["what"].endswith(".metadata"):
                    detail(f"{match['what'].rpartition('/')[2]}, {match['size']} {match['unit']}")
            if total > most_mb:
                raise TooLarge
        return process.wait(), "".join(said)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@functools.cache
def environment() -> dict[str, str]:
    """The environment in which pip knows the user's index and heeds nothing else that he has set."""
    place = _own_place()
    return index_environment([sys.executable, f"{place}/pip"] if place else [sys.executable, "-m", "pip"])


def _own_place() -> str:
    """What must be on the path for `import pip`: nothing where it is installed, else its wheel."""
    return "" if importlib.util.find_spec("pip") else str(bundled_wheel())


def bundled_wheel() -> Path:
    """The wheel of pip that came with this Python.

    Raises:
        OutsideFailure: there is none.
    """
    folders = [DEBIAN]
    if spec := importlib.util.find_spec("ensurepip"):
        folders.insert(0, Path(spec.origin or os.devnull).parent / "_bundled")
    for folder in folders:
        if wheels := sorted(folder.glob("pip-*.whl")):
            return wheels[-1]
    todo = "run `sudo apt-get install python3-venv`, or use a Python with ensurepip"
    raise OutsideFailure("has no wheel of pip to send along", where=sys.executable, todo=todo)
