"""What is imitated of a board: its core, its memory, its number of cores, what its system says of itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import BadInput
from edgekit.target import load_target
from edgekit.target_file import names

EMULATOR_MB = 150  # QEMU itself took 46 to 137 MB: its own binary, and the code that it translated
PLATFORM = "linux/arm64"


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board that can be imitated.

    Attributes:
        name: of the target.
        cpu: QEMU's name of the core.
        cpuinfo: file with what /proc/cpuinfo says on the board.
        memory_mb: of the board, 10^6 bytes.
        cores: of the board that a model may use.
    """

    name: str
    cpu: str
    cpuinfo: Path
    memory_mb: float
    cores: int

    @property
    def limit_bytes(self) -> int:
        """Memory that the container may use: the board's, and what the emulator itself takes."""
        return int((self.memory_mb + EMULATOR_MB) * 1e6)

    @property
    def meminfo(self) -> str:
        """What /proc/meminfo says: the board's memory, all of it free at the start."""
        total = int(self.memory_mb * 1e6 / 1024)
        amounts = {
            "MemTotal": total, "MemFree": total, "MemAvailable": total, "Buffers": 0, "Cached": 0,
            "SwapTotal": 0, "SwapFree": 0,
        }  # fmt: skip
        return "".join(f"{name + ':':<15} {amount:>9} kB\n" for name, amount in amounts.items())


def board_of(target_name: str) -> Board:
    """The board of a target.

    Raises:
        BadInput: there is no such target, or its profile does not say how to imitate the board.
    """
    target = load_target(target_name)
    profile = target.profile
    if profile.emulation is None:
        what = f"the profile {profile.name} has no `emulation`: this board cannot be imitated"
        todo = f"these can: {', '.join(imitable())}"
        raise BadInput(what, where=f"container:{target_name}", todo=todo)
    cpuinfo = folder() / f"cpuinfo-{profile.emulation.cpuinfo}.txt"
    if not cpuinfo.is_file():
        known = sorted(path.stem.removeprefix("cpuinfo-") for path in folder().glob("cpuinfo-*.txt"))
        what = f"there is no cpuinfo `{profile.emulation.cpuinfo}`"
        raise BadInput(what, where=f"profile {profile.name}: emulation", todo=f"there is {', '.join(known)}")
    return Board(
        name=target_name,
        cpu=profile.emulation.cpu,
        cpuinfo=cpuinfo,
        memory_mb=profile.memory_mb,
        cores=profile.cores,
    )


def imitable() -> list[str]:
    """The targets whose boards can be imitated, sorted; a broken file of the user's is left out."""
    found = []
    for name in names("target"):
        try:
            if load_target(name).profile.emulation is not None:
                found.append(name)
        except BadInput:
            continue
    return found


def folder() -> Path:
    """Where the files of `docker/` lie, in a wheel or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "data" / "docker"
    return shipped if shipped.is_dir() else package.parent / "docker"


def cache_folder() -> Path:
    """The user's cache folder; EDGEKIT_CACHE names another."""
    if named := os.environ.get("EDGEKIT_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return Path(user_cache_path("edgekit"))
