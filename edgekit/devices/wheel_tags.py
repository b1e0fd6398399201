"""Which wheels fit a device: what its Python, processor and glibc mean in the names of wheels."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

FIRST_GLIBC = {"x86_64": 5, "i686": 5}  # the oldest that a manylinux was made for: 2.5
USUAL_FIRST = 17
LEGACY = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}


@dataclass(frozen=True, kw_only=True)
class Place:
    """What decides which wheels fit a device.

    Attributes:
        arch, python, glibc: as for `wheels_for`.
    """

    arch: str
    python: str
    glibc: str

    @property
    def minor(self) -> tuple[int, int]:
        """The version of Python that wheels are made for."""
        first, second = self.python.split(".")[:2]
        return int(first), int(second)

    @property
    def platforms(self) -> list[str]:
        """The platform tags of its wheels, best first."""
        newest, first = int(self.glibc.split(".")[1]), FIRST_GLIBC.get(self.arch, USUAL_FIRST)
        names = []
        for minor in range(newest, first - 1, -1):
            names.append(f"manylinux_2_{minor}_{self.arch}")
            names += [f"{name}_{self.arch}" for name, asks in LEGACY.items() if asks == minor]
        return [*names, f"linux_{self.arch}"]

    @property
    def tags(self) -> Iterator[Tag]:
        """The tags of its wheels."""
        name = "cp{}{}".format(*self.minor)
        yield from cpython_tags(self.minor, [name], self.platforms)
        yield from compatible_tags(self.minor, name, self.platforms)

    @property
    def markers(self) -> dict[str, str]:
        """It in the words of environment markers; of a version of two numbers, the first release."""
        full = self.python if self.python.count(".") > 1 else f"{self.python}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.arch,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": "{}.{}".format(*self.minor),
            "sys_platform": "linux",
        }

    def __str__(self) -> str:
        """It in words."""
        return f"CPython {'.'.join(map(str, self.minor))} on {self.arch} with glibc {self.glibc}"


def fits(name: str, place: Place) -> bool:
    """Whether the wheel of this file name can be installed there."""
    try:
        return not parse_wheel_filename(name)[3].isdisjoint(_tags(place))
    except InvalidWheelFilename:
        return False


@functools.cache
def _tags(place: Place) -> frozenset[Tag]:
    return frozenset(place.tags)
