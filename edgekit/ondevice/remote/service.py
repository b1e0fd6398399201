"""A service of systemd that serves a bundle: its unit, its start, its health. Root's is the system's own."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import pwd
import signal
import socket
import subprocess
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

SECONDS = 60.0  # for a word with systemd
START_SECONDS = 300.0
HEALTH_SECONDS = 60.0
STEADY_SECONDS = 2.0  # a service that answers once and dies is not healthy
HEARTBEAT_SECONDS = 10.0
LINES = 4
ANOTHER = "it serves version"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEMD_RUNS = "/run/systemd/system"  # sd_booted(3)
LINGER = "/var/lib/systemd/linger"
# `WorkingDirectory` resolves the link at each start, so that a running service keeps to its version. A trial
# that no deployment of this boot goes on with was cut short: the version before it is taken up again. Of a
# user's process that ends at once the journal loses the unit, but not the identifier.
UNIT = (
    """\
# Written by `edgekit deploy`.
[Unit]
Description=edgekit: {name}

[Service]
Type=notify
NotifyAccess=main
WorkingDirectory={folder}/current
ExecStartPre=/bin/sh -c 'if [ -L ../../trial ] && [ ! -e %t/{unit}.trial ]; """
    """then mv -T ../../trial ../../current; fi'
ExecStart=/usr/bin/env venv/bin/python bundle/run.py --serve {address}
Restart=on-failure
RestartSec=5
TimeoutStartSec={start:.0f}
SyslogIdentifier={unit}
RuntimeDirectory=edgekit/{name}
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
{more}
[Install]
WantedBy={wanted_by}
"""
)
# What only the system's manager can do everywhere.
MORE = """\
CapabilityBoundingSet=
ProtectSystem=strict
ReadWritePaths={writable}
PrivateTmp=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
"""


class Manager:
    """The systemd that starts services for the user who deploys.

    Attributes:
        is_system: whether it is the system's, and not the user's own.
        units: the folder of its unit files.
        runtime: its folder in memory, gone after a reboot: `%t`.
    """

    def __init__(self) -> None:
        user = os.geteuid()
        self.is_system = user == 0
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        self.units = "/etc/systemd/system" if self.is_system else os.path.join(home, "systemd", "user")
        self.runtime = "/run" if self.is_system else os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"

    def why_absent(self) -> Optional[str]:
        """Why no service can be started, and what to do; None where one can."""
        if not os.path.isdir(SYSTEMD_RUNS):
            return "no systemd runs there"
        if not self.is_system and not os.path.exists(os.path.join(self.runtime, "systemd", "private")):
            user = user_name()
            return (
                f"systemd keeps no services for {user}; type `sudo loginctl enable-linger {user}` there once"
            )
        return None

    def hint(self) -> Optional[str]:
        """What the user should know of when the service runs."""
        user = user_name()
        if self.is_system or os.path.exists(os.path.join(LINGER, user)):
            return None
        return (
            f"the service ends when {user} logs out, and does not start at boot, "
            f"until `sudo loginctl enable-linger {user}` is typed there once"
        )

    def path(self, unit: str) -> str:
        """Where the file of a unit lies."""
        return os.path.join(self.units, f"{unit}.service")

    def systemctl(self, *words: str, beat: Optional[Callable[[], None]] = None) -> Tuple[int, str]:
        """Give systemd an order, or ask it; returns the exit status and what was said."""
        command = ["systemctl", *([] if self.is_system else ["--user"]), *words]
        return told(command, START_SECONDS + SECONDS, environment=self.environment(), beat=beat)

    def environment(self) -> Dict[str, str]:
        """In which the tools of systemd find it."""
        path = os.environ.get("PATH", "")
        more = {} if self.is_system else {"XDG_RUNTIME_DIR": self.runtime}
        return {**os.environ, "PATH": f"{path}:{PATH}", "LC_ALL": "C", **more}

    def last_words(self, unit: str, since: float) -> str:
        """The last lines that the service has said since a time, else how systemd says that it ended."""
        command = ["journalctl", "--no-pager", "--quiet", "-o", "cat", "-t", unit, "--since", f"@{since:.3f}"]
        for _ in range(10):  # the journal may come a little late
            status, text = told(command, SECONDS, environment=self.environment(), only_output=True)
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines and status == 0:
                return " | ".join(lines[-LINES:])
            time.sleep(0.2)
        return ", ".join(self.systemctl("show", "-p", "Result,ExecMainStatus,StatusText", unit)[1].split())

    def state(self, unit: str) -> Dict[str, str]:
        """`ActiveState`, `MainPID`, `NRestarts` of a unit."""
        _, text = self.systemctl("show", "-p", "ActiveState,MainPID,NRestarts", unit)
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def user_name() -> str:
    """Of whoever deploys."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def unit_text(manager: Manager, name: str, folder: str, address: str) -> str:
    """The file of the unit for the service `name`, whose versions lie in `folder`."""
    writable = [folder]
    if address.startswith("unix:/"):
        writable.append(os.path.dirname(address[len("unix:") :]))
    return UNIT.format(
        name=name,
        unit=unit_name(name),
        folder=folder.replace("%", "%%"),
        address=address,
        start=START_SECONDS,
        more=MORE.format(writable=" ".join(map(quoted, writable))) if manager.is_system else "",
        wanted_by="multi-user.target" if manager.is_system else "default.target",
    )


def unit_name(name: str) -> str:
    """What the unit of a service is called, without `.service`."""
    return f"edgekit-{name}"


def quoted(path: str) -> str:
    """A path as one word of a unit file."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def usual_address(name: str) -> str:
    """Where a service listens unless it is told otherwise; systemd puts its folder for `%t`."""
    return f"unix:%t/edgekit/{name}/http.sock"


def healthy(
    manager: Manager, unit: str, address: str, version: str, beat: Callable[[], None]
) -> Optional[str]:
    """Wait until the service answers as this version, and goes on to; returns what is wrong, or None."""
    end = time.monotonic() + HEALTH_SECONDS
    for number in itertools.count(1):
        wrong = asked(address.replace("%t", manager.runtime), version)
        if wrong is None:
            break
        if wrong.startswith(ANOTHER):
            return wrong
        if number % 50 == 0:
            beat()
        state = manager.state(unit).get("ActiveState")
        if state not in ("active", "activating", "reloading"):
            return f"it is {state}"
        if time.monotonic() > end:
            return f"not healthy after {HEALTH_SECONDS:.0f} s: {wrong}"
        time.sleep(0.2)
    before = manager.state(unit)
    time.sleep(STEADY_SECONDS)
    if manager.state(unit) != before:
        return f"it ended within {STEADY_SECONDS:.0f} s"
    return asked(address.replace("%t", manager.runtime), version)


def asked(address: str, version: str) -> Optional[str]:
    """Ask a service for its health once; returns what is wrong, None if nothing is."""
    connection = _connection(address)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        body = answer.read(1 << 16)
        if answer.status != 200:
            return f"/health answers {answer.status}"
        found = json.loads(body.decode("utf-8")).get("version")
        return None if found == version else f"{ANOTHER} {str(found)[:20]}"
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return f"{address}: {error}"
    finally:
        connection.close()


def _connection(address: str) -> http.client.HTTPConnection:
    if not address.startswith("unix:"):
        return http.client.HTTPConnection(address, timeout=10)
    connection = http.client.HTTPConnection("localhost", timeout=10)

    def connect() -> None:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(address[len("unix:") :])

    connection.connect = connect  # type: ignore[method-assign]
    return connection


def told(
    command: Sequence[str],
    seconds: float,
    *,
    environment: Optional[Dict[str, str]] = None,
    folder: Optional[str] = None,
    beat: Optional[Callable[[], None]] = None,
    only_output: bool = False,
) -> Tuple[int, str]:
    """Run a command to its end; returns its exit status (-9 when it was ended for its time) and what it said.

    Args:
        command: the program and its arguments.
        seconds: after which it is ended.
        environment: of it; this one's when None.
        folder: in which it runs.
        beat: called now and then while it runs, so that whoever waits hears that somebody is there.
        only_output: leave out what it says on standard error.
    """
    errors: Any = subprocess.DEVNULL if only_output else subprocess.STDOUT
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=folder,
        )
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    end, text = time.monotonic() + seconds, b""
    while True:
        try:
            text = process.communicate(timeout=min(seconds, HEARTBEAT_SECONDS))[0]
            break
        except subprocess.TimeoutExpired:
            if beat:
                beat()
            if time.monotonic() > end:
                end_all(process.pid)
    return process.returncode, text.decode("utf-8", "replace").strip()


def end_all(pid: int) -> None:
    """Kill a process and all that it has started."""
    parents: Dict[int, List[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                parents.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(name))
        except OSError:
            continue
    ended = [pid]
    for one in ended:
        ended.extend(parents.get(one, []))
        try:
            os.kill(one, signal.SIGKILL)
        except OSError:
            continue
