"""A board imitated in a container: its instruction set, its memory, a clean system; never its speed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.devices.container_home import Home, make_home, sweep
from edgekit.devices.container_process import ContainerProcess, said
from edgekit.devices.device import SILENCE_SECONDS, ConnectionLost, Detail, run
from edgekit.emulation.board import EMULATOR_MB, PLATFORM, Board, board_of
from edgekit.emulation.engine import connect, no_emulator, reason, require_emulation
from edgekit.emulation.image import image_of
from edgekit.errors import EdgekitError, OutsideFailure

HOME = "/home/edge"
PIDS = 512  # a thread is one; every emulated process has two
# What the kernel keeps of the container's memory, by cgroup version 1 and 2.
ACCOUNTS = [
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/sys/fs/cgroup/memory/memory.max_usage_in_bytes",
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory.peak",
]
END_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What became of a container's memory, 10^6 bytes.

    Attributes:
        board_mb: of the board.
        limit_mb: that of the board, and what the emulator may take.
        peak_mb: the most that was in use at once, files that the kernel keeps in memory included; None where
            the kernel does not tell.
        kills: processes that the kernel ended because the limit was reached.
    """

    board_mb: float
    limit_mb: float
    peak_mb: float | None
    kills: int


def open_container(
    target_name: str, *, detail: Detail, mounts: Mapping[str, Path] | None = None
) -> ContainerDevice:
    """A container that is the board of a target; it lives until `close`, or until edgekit ends in any way.

    Args:
        target_name: whose board it is.
        detail: takes the lines of progress.
        mounts: more folders of this machine, to be read, by their place in the container.

    Raises:
        BadInput: there is no such target, or its board cannot be imitated.
        OutsideFailure: no engine, no emulator or no image; the line names the command that mends it.
    """
    board, client = board_of(target_name), connect()
    try:
        require_emulation(client)
        sweep(client)
        image = image_of(client, board, detail)
        detail("starting the container")
        return _started(client, board, image, mounts or {})
    except BaseException:
        client.close()
        raise


def _started(client: Any, board: Board, image: str, mounts: Mapping[str, Path]) -> ContainerDevice:
    from docker.errors import DockerException

    home = make_home(board.meminfo)
    device = ContainerDevice(client, board, home, mounts)
    try:
        device.begin(image)
    except DockerException as error:
        device.close()
        raise OutsideFailure(f"does not start: {reason(error)}", where=device.name) from error
    except BaseException:
        device.close()
        raise
    return device


class ContainerDevice:
    """See `edgekit.devices.device.Device`."""

    is_here = True

    def __init__(self, client: Any, board: Board, home: Home, mounts: Mapping[str, Path]) -> None:
        self.name = f"container:{board.name}"
        self.board = board
        self.client = client
        self.id = ""
        self._home = home
        self._mounts = mounts
        self._owner: Any = None
        self._told = 0

    def begin(self, image: str) -> None:
        """Start the container.

        Its first process reads the connection that this object holds and ends with it: when edgekit is
        killed, the kernel closes the connection, and the container goes with all that runs in it.

        Raises:
            OutsideFailure: nothing runs in it.
            DockerException: the engine refuses it.
        """
        api = self.client.api
        self.id = api.create_container(
            image,
            ["cat"],
            entrypoint=[],
            stdin_open=True,
            user=f"{self._home.uid}:{self._home.gid}",
            working_dir=HOME,
            environment=_environment(self.board),
            labels={"edgekit": self.board.name, **self._home.label},
            platform=PLATFORM,
            host_config=api.create_host_config(**_limits(self.board, self._home, self._mounts)),
        )["Id"]
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        self._owner = api.attach_socket(self.id, params=streams)
        api.start(self.id)
        try:
            done = run(self, ["true"])
        except ConnectionLost:
            done = None
        if done is None or done.status != 0:
            line = said(self._owner)
            if "exec format error" in line.lower():
                raise no_emulator()
            raise OutsideFailure(f"nothing runs in it: {line or 'no message'}", where=self.name)

    def start(self, command: Sequence[str], *, silence: float = SILENCE_SECONDS) -> ContainerProcess:
        """See `Device.start`."""
        with self._lost():
            return ContainerProcess(self.client.api, self.id, command, name=self.name, silence=silence)

    @contextlib.contextmanager
    def _lost(self) -> Any:
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            yield
        except (DockerException, RequestException, OSError) as error:
            raise ConnectionLost(f"is gone: {reason(error)}", where=self.name) from error

    def reconnect(self, *, patience: float, detail: Detail) -> None:
        """There is nothing to connect to: a container that is gone does not come back.

        Raises:
            OutsideFailure: it is gone.
        """
        del patience, detail
        done = run(self, ["true"])
        if done.status != 0:
            raise OutsideFailure(f"is gone: {done.stderr.strip() or 'no message'}", where=self.name)

    def memory(self) -> Memory:
        """What became of its memory so far.

        Raises:
            ConnectionLost: the container is gone.
        """
        text = run(self, ["cat", *ACCOUNTS]).stdout.decode("ascii", "replace")
        kills = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        peak = re.search(r"^(\d+)$", text, re.MULTILINE)
        return Memory(
            board_mb=self.board.memory_mb,
            limit_mb=self.board.limit_bytes / 1e6,
            peak_mb=int(peak[1]) / 1e6 if peak else None,
            kills=int(kills[1]) if kills else 0,
        )

    def trouble(self) -> str | None:
        """What the container did to a program that failed: a sentence if the memory limit ended a process.

        Each kill is told once.
        """
        try:
            memory = self.memory()
        except EdgekitError as error:
            return error.what
        fresh, self._told = memory.kills - self._told, memory.kills
        if fresh <= 0:
            return None
        ended = "a process" if fresh == 1 else f"{fresh} processes"
        limit = (
            f"{memory.limit_mb:.0f} MB (the board's {memory.board_mb:.0f} and {EMULATOR_MB} for the emulator)"
        )
        peak = "" if memory.peak_mb is None else f"; the peak was {memory.peak_mb:.0f} MB"
        return f"the memory limit of {limit} ended {ended}{peak}"

    def close(self) -> None:
        """See `Device.close`: nothing of the container is left."""
        if self.id:
            _quietly(lambda: self.client.api.remove_container(self.id, force=True, v=True))
            # The engine may be removing it already, because its first process ended.
            _quietly(lambda: self.client.api.wait(self.id, timeout=END_SECONDS, condition="removed"))
        if self._owner is not None:
            _quietly(self._owner._sock.close)
        self._home.remove()
        _quietly(self.client.close)


def _quietly(act: Callable[[], object]) -> None:
    """Do it as far as it can be done; what is gone already is fine."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    with contextlib.suppress(DockerException, RequestException, OSError):
        act()


def _environment(board: Board) -> dict[str, str]:
    return {
        "HOME": HOME,
        "QEMU_CPU": board.cpu,  # without it QEMU is a core with everything, and ten times slower
        "PYTHONHASHSEED": "0",  # the same instructions each time
        "PYTHONDONTWRITEBYTECODE": "",  # as on a board; the image sets it
        "LANG": "C.UTF-8",
    }


def _limits(board: Board, home: Home, mounts: Mapping[str, Path]) -> dict[str, Any]:
    """What the container may use and see: the arguments of the engine's host configuration."""
    bound = [
        f"{board.cpuinfo.resolve()}:/proc/cpuinfo:ro",
        f"{home.meminfo}:/proc/meminfo:ro",
        f"{home.writable}:{HOME}",
        f"{home.scratch}:/tmp",  # a tmpfs would count as memory
        *(f"{path.resolve()}:{place}:ro" for place, path in mounts.items()),
    ]
    return {
        "init": True,  # a program that crashes as process 1 under QEMU would hang for ever
        "auto_remove": True,
        "binds": bound,
        "mem_limit": board.limit_bytes,
        "memswap_limit": board.limit_bytes,
        "cpuset_cpus": home.cpus(board.cores),
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": PIDS,
    }
