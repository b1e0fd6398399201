"""Make the virtual environment of one bundle: its exact packages, and nothing outside of its folder.

`environment FOLDER look|make`, and on standard input what it shall hold, as JSON: {"requirements": {name:
version}, "system_packages": bool, "installer": the name of pip's wheel in FOLDER/wheels, "offline": bool}.

It is complete when its record stands, which is written last. Any other is removed and made again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence

OUTSIDE = 4
RECORD = "edgekit.json"
BEAT_SECONDS = 10.0  # a line at least that often, so that nobody takes the connection for lost
TOLD = ("Downloading ", "Using cached ", "Installing ")
LIST = (
    "import importlib.metadata as m, json\n"
    "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions() if d.metadata['Name']}))"
)
pip: Any = sys.modules["edgekit_pip"]  # sent along


class Refused(Exception):
    """One line: what is wrong, and what to do."""


def main(arguments: List[str]) -> int:
    """Print the path of the environment's Python, or null, and the version of the Python that runs this."""
    folder, action = arguments
    wanted = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    try:
        python = find(folder, wanted) if action == "look" else make(folder, wanted)
    except Refused as refused:
        print(f"environment: {refused}", file=sys.stderr)
        return OUTSIDE
    except OSError as error:
        print(f"environment: {trouble(error, folder)}", file=sys.stderr)
        return OUTSIDE
    print(json.dumps({"python": python, "version": platform.python_version()}))
    return 0


def find(folder: str, wanted: Dict[str, Any]) -> Optional[str]:
    """The Python of the complete environment that is there already; None when there is none."""
    python = os.path.join(folder, "venv", "bin", "python")
    try:
        with open(os.path.join(folder, "venv", RECORD), encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("made_for") != identity(wanted):
        return None
    # The system's Python may be another one since, and its old environments do not start.
    asked = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        done = subprocess.run(
            asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=pip.bare_environment(), check=False
        )
    except OSError:
        return None
    return python if done.stdout.decode().strip() == short_version() else None


def identity(wanted: Dict[str, Any]) -> Dict[str, Any]:
    """What an environment must have in common with another to take its place."""
    return {
        "requirements": wanted["requirements"],
        "system_packages": wanted["system_packages"],
        "python": short_version(),
    }


def short_version() -> str:
    """The version of this Python to which wheels are bound, `3.11`."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def make(folder: str, wanted: Dict[str, Any]) -> str:
    """The Python of the environment, which is made where it is not there or not complete."""
    os.makedirs(folder, exist_ok=True)
    with locked(os.path.join(folder, "venv.lock")) as lock:
        found = find(folder, wanted)
        if found:
            return found
        venv = os.path.join(folder, "venv")
        remove(venv)
        try:
            python = fill(folder, venv, wanted, lock)
            status, said = run([python, "-c", LIST], None, lock)
            if status:
                raise Refused(f"the new environment's Python does not start: {last_line(said)}")
            os.sync()  # the record must not reach the disk before what it stands for
            record = {"made_for": identity(wanted), "packages": json.loads(said)}
            write(os.path.join(venv, RECORD), record)
        except BaseException:
            remove(venv)
            raise
    return python


def fill(folder: str, venv: str, wanted: Dict[str, Any], lock: int) -> str:
    """Make the environment and install into it."""
    say("making the environment")
    # Without pip: Debian has ensurepip in a package of its own, python3-venv, and pip's wheel came along.
    options = ["--system-site-packages"] if wanted["system_packages"] else []
    status, said = run([sys.executable, "-m", "venv", "--without-pip", *options, venv], None, lock)
    if status:
        raise Refused(venv_complaint(said, folder))
    python = os.path.join(venv, "bin", "python")
    pins = [f"{name}=={version}" for name, version in sorted(wanted["requirements"].items())]
    if pins:
        install(python, pins, folder, wanted, lock)
    return python


def install(python: str, pins: Sequence[str], folder: str, wanted: Dict[str, Any], lock: int) -> None:
    """Let pip install the pins, from the wheels that came along or from the device's own index."""
    wheels, scratch = os.path.join(folder, "wheels"), os.path.join(folder, "venv", "tmp")
    command = [python, os.path.join(wheels, wanted["installer"], "pip")]
    offline = wanted["offline"]
    environment = pip.bare_environment() if offline else pip.index_environment(command)
    environment["PIP_CONFIG_FILE"] = os.devnull
    os.mkdir(scratch)
    environment["TMPDIR"] = scratch  # a /tmp in memory is too small for large wheels
    # Without byte code: compiling all of numpy takes a Pi longer than installing it. The first import writes
    # what it uses, and that is the check which follows, by the same user.
    command += ["install", "--no-compile", "--only-binary", ":all:", "--no-warn-script-location", *pip.QUIET]
    command += ["--no-index", "--find-links", wheels] if offline else []
    say("installing " + ", ".join(pins))
    status, said = run([*command, *pins], environment, lock)
    if status:
        raise Refused(pip_complaint(pip.complaint(said), folder, offline))
    shutil.rmtree(scratch, ignore_errors=True)


def run(command: Sequence[str], environment: Optional[Dict[str, str]], lock: int) -> "tuple[int, str]":
    """Run a command to its end, with a line of progress now and then; its status and all that it said.

    Args:
        command: what to run.
        environment: of it; None is this program's less what would disturb it.
        lock: the file that stays locked until it has ended too, should this program be killed.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=pip.bare_environment() if environment is None else environment,
        pass_fds=(lock,),
    )  # in this program's process group, which Ctrl-C ends as a whole
    try:
        return listen(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def listen(process: "subprocess.Popen[bytes]") -> "tuple[int, str]":
    """Read a process to its end, with a line of progress now and then."""
    lines: "queue.Queue[Optional[bytes]]" = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    said: List[str] = []
    begun = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=BEAT_SECONDS)
        except queue.Empty:
            say(f"still installing, {time.monotonic() - begun:.0f} s")
            continue
        if line is None:
            return process.wait(), "".join(said)
        text = line.decode("utf-8", "replace")
        said.append(text)
        if text.strip().startswith(TOLD) and ".metadata" not in text:
            say(text.strip())


@contextlib.contextmanager
def locked(path: str) -> Iterator[int]:
    """Wait until nobody else makes this environment; the number of the open file that holds the lock."""
    with open(path, "ab") as file:
        begun, told = time.monotonic(), 0.0
        while True:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= told:
                    say(f"another program makes this environment; waiting, {time.monotonic() - begun:.0f} s")
                    told = time.monotonic() + BEAT_SECONDS
                time.sleep(0.1)
        yield file.fileno()


def remove(venv: str) -> None:
    """Remove an environment: its record first, so that half of one never counts as complete."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(venv, RECORD))
    if os.path.lexists(venv):
        shutil.rmtree(venv)


def write(path: str, record: Dict[str, Any]) -> None:
    """Write the record whole or not at all."""
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".part", path)


def venv_complaint(said: str, folder: str) -> str:
    """Why the environment itself could not be made."""
    if "No module named" in said:
        name = "python" + short_version()
        return f"{sys.executable} has no venv module; run `sudo apt-get install {name}-venv` on the device"
    if "No space left" in said or "Errno 28]" in said:
        return f"no room left on the disk; {room(folder)}"
    command = f"{sys.executable} -m venv --without-pip"
    return f"`{command}` failed: {last_line(said)}; run it there to see why"


def pip_complaint(failed: Any, folder: str, offline: bool) -> str:
    """What pip's complaint means here, and what to do."""
    here = f"Python {platform.python_version()} on {platform.machine()}"
    if failed.kind == "fit" and offline:
        what = f"no wheel of {failed.package}{failed.pin} came along that fits {here}"
        return f"{what}; build the bundle for this device"
    if failed.kind == "fit":
        newest = f", the newest that does is {failed.versions[-1]}" if failed.versions else ""
        return (
            f"no wheel of {failed.package}{failed.pin} fits {here}{newest}; pin a version that fits in the "
            "target's `requirements` and build again"
        )
    todo = {
        "network": "add `--offline` to send the packages along, or give the device a network",
        "clock": "set the device's clock, or add `--offline`",
        "disk": room(folder),
    }
    return (
        f"{failed.what}; {todo.get(failed.kind, 'add `--offline`, or install with pip by hand to see why')}"
    )


def trouble(error: OSError, folder: str) -> str:
    """What the system's refusal means, and what to do."""
    what = f"{error.filename or folder}: {error.strerror or error}"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{what}; {room(folder) if full else 'let the user that edgekit comes as write there'}"


def last_line(said: str) -> str:
    """The last line that says something."""
    return (said.strip().splitlines() or ["no message"])[-1]


def room(folder: str) -> str:
    """What to do about a full disk."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return f"free some space on the device: {shutil.disk_usage(folder).free / 1e6:.0f} MB are left"


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
