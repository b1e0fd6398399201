"""Run a command apart from the connection that asked for it, which may break. Each action is one call.

    start ROOT ID SECONDS COMMAND...  begin it, unless a run of this ID has begun before or was stopped
    watch ROOT ID OFFSET              its log from that byte on while it grows, then how it ended
    collect ROOT ID OFFSET            what it printed, from that byte on, as it is
    stop ROOT ID                      end it with all that it started; it cannot begin after that
    clean ROOT ID                     remove its folder

ID is a word that whoever asks makes up, so that an answer that got lost can be asked for again. The folder
ROOT/runs/ID holds `log` (standard error), `out` (standard output; `out.part` while it runs), `begun.json`,
`status.json`, `stopped`, and two locks: `lock` of who begins or stops the run, `alive` of its supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, NoReturn, Optional, Sequence

state = sys.modules["edgekit_run_state"]  # sent along
OUTSIDE = 4
NOT_FOUND = 127  # what a shell gives
ENDED_BY_TERM = 128 + signal.SIGTERM
BEAT_SECONDS = 2.0  # between two signs of life to who watches
LOOK_SECONDS = 0.5
KEPT_DAYS = 7
RESERVED = 4096  # bytes of status.json, taken at the start: a full disk cannot hide how the run ended
LEAST_FREE = 1 << 16  # bytes; below that, output may be cut off: Python can end with 0 all the same
Answer = Optional[Dict[str, Any]]


def main(arguments: Sequence[str]) -> int:
    """The program; returns its exit status."""
    action, root, name, *rest = arguments
    folder = os.path.join(root, "runs", name)
    try:
        answer = ACTIONS[action](folder, *rest)
        if answer is not None:
            print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever watched has gone
    except state.Refused as error:
        print(f"detached: {error}", file=sys.stderr)
        return OUTSIDE
    except OSError as error:
        print(f"detached: {trouble(folder, error)}", file=sys.stderr)
        return OUTSIDE
    return 0


def trouble(folder: str, error: OSError) -> str:
    """What the system refused, and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{folder}: {error.strerror}; {'free some space there' if full else 'look at its permissions'}"


def start(folder: str, seconds: str, *command: str) -> Answer:
    """Begin a run; returns when it has begun."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    remove_old(os.path.dirname(folder))
    lock = state.locked(folder, "lock")
    if not state.has(folder, "begun.json") and not state.has(folder, "stopped"):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            supervise(folder, float(seconds), command, lock, writer)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader, encoding="utf-8") as answer:
            said = answer.read()
        if said != "begun":
            raise state.Refused(said or f"{folder}: the run did not begin; try again")
    os.close(lock)
    return {"boot": state.boot_mark()}


def remove_old(runs: str) -> None:
    """Remove the folders of runs that ended long ago and that nobody collected."""
    for name in os.listdir(runs):
        folder = os.path.join(runs, name)
        with contextlib.suppress(FileNotFoundError):  # another start was faster
            is_old = time.time() - os.stat(folder).st_mtime > KEPT_DAYS * 86400
            if is_old and not state.is_alive(folder):
                shutil.rmtree(folder, ignore_errors=True)


def supervise(folder: str, seconds: float, command: Sequence[str], lock: int, tell: int) -> NoReturn:
    """Run the command to its end, as a process that no connection and no terminal has a hold on."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        for stream in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it was ignored, nobody learns how a child ended
        alive = state.locked(folder, "alive")  # held until this process ends
        process = begin(folder, command)
        os.write(tell, b"begun")
        os.close(tell)
        os.close(lock)
        see_through(folder, process, seconds)
        os.close(alive)
    except (OSError, state.Refused) as error:
        said = trouble(folder, error) if isinstance(error, OSError) else str(error)
        with contextlib.suppress(OSError):  # the run has begun: `watch` will miss its status
            os.write(tell, said.encode())
    finally:
        os._exit(0)


def begin(folder: str, command: Sequence[str]) -> Optional["subprocess.Popen[bytes]"]:
    """Start the command; None where it cannot be started, which the log then tells."""
    with open(os.path.join(folder, "status.part"), "wb") as file:
        file.write(b" " * RESERVED)
    variables = {**os.environ, state.MARK: os.path.basename(folder)}
    with open(os.path.join(folder, "log"), "wb") as log, open(os.path.join(folder, "out.part"), "wb") as out:
        state.write_whole(folder, "begun.json", {"boot": state.boot_mark(), "oom": state.kills_for_memory()})
        try:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            log.write(f"{command[0]}: {error.strerror}\n".encode())
            return None


def see_through(folder: str, process: Optional["subprocess.Popen[bytes]"], seconds: float) -> None:
    """Wait for the end of the command, at most so many seconds, and write down how it ended."""
    begun, oom = time.monotonic(), state.kills_for_memory()
    timed_out = process is not None and wait(process, seconds, os.path.basename(folder))
    status = NOT_FOUND if process is None else process.wait()
    record = {
        "status": 128 - status if status < 0 else status,
        "timed_out": timed_out,
        "out_of_memory": status == -signal.SIGKILL and state.kills_for_memory() > oom,
        "disk_full": state.free_bytes(folder) < LEAST_FREE,
        "seconds": round(time.monotonic() - begun, 3),
    }
    finish(folder, record)


def wait(process: "subprocess.Popen[bytes]", seconds: float, name: str) -> bool:
    """Wait without a look now and then, which would disturb what is measured, and end what is left.

    Returns:
        Whether the command took longer than `seconds`.
    """
    # Not reaped yet, so that the number of the session cannot become another's.
    options = (os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    waiter = threading.Thread(target=os.waitid, args=options, daemon=True)
    waiter.start()
    waiter.join(seconds)
    timed_out = waiter.is_alive()
    state.end_all(name, session=process.pid)
    return timed_out


def finish(folder: str, record: Dict[str, Any]) -> None:
    """Put output and status into place, each of them whole, and written to the disk."""
    part = os.path.join(folder, "out.part")
    with open(part, "rb") as out:
        try:
            os.fsync(out.fileno())
        except OSError:  # some file systems look for room only now
            record["disk_full"] = True
        record["out_bytes"] = os.fstat(out.fileno()).st_size
    os.replace(part, os.path.join(folder, "out"))
    state.write_whole(folder, "status.json", {**record, "boot": state.boot_mark()})


def watch(folder: str, start_at: str) -> Answer:
    """Print the log as JSON lines while the run lasts, blank lines as signs of life, and how it ended."""
    offset, pause, beat = int(start_at), 0.02, time.monotonic()
    reader = select.poll()
    reader.register(1, 0)  # only its end
    while True:
        alive = state.is_alive(folder)  # asked before the log is read, so that its last line is not missed
        for piece in state.pieces(folder, "log", offset):
            offset, beat = offset + len(piece), time.monotonic()
            print(json.dumps({"log": piece.decode("latin-1"), "offset": offset}), flush=True)
        if not alive:
            return ended(folder)
        if time.monotonic() - beat > BEAT_SECONDS:
            print(flush=True)
            beat = time.monotonic()
        if reader.poll(pause * 1000):
            return None
        pause = min(2 * pause, LOOK_SECONDS)


def ended(folder: str) -> Answer:
    """What became of a run whose supervisor is gone."""
    begun, record = state.read(folder, "begun.json"), state.read(folder, "status.json")
    boot = state.boot_mark()
    if begun is None:
        return {"state": "missing", "boot": boot}
    same_boot = begun["boot"] == boot
    if record is not None and (record["status"] == 0 or same_boot):
        if record["status"] == ENDED_BY_TERM and not record["timed_out"]:
            let_the_device_go_down()
        return {"state": "ended", **record}
    if not same_boot:
        return {"state": "rebooted", "boot": boot}
    state.end_all(os.path.basename(folder))
    let_the_device_go_down()
    return {"state": "killed", "out_of_memory": state.kills_for_memory() > begun["oom"]}


def let_the_device_go_down() -> None:
    """Wait a little: a device that shuts down ends the run first, then this, and its reboot will be told."""
    for _ in range(4):
        print(flush=True)
        time.sleep(1)


def collect(folder: str, start_at: str) -> Answer:
    """Write what the run printed, from a byte on."""
    for piece in state.pieces(folder, "out", int(start_at)):
        sys.stdout.buffer.write(piece)
    sys.stdout.flush()
    return None


def stop(folder: str) -> Answer:
    """End a run with all that it started; its folder keeps no more than that it was stopped."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    lock = state.locked(folder, "lock")
    with contextlib.suppress(OSError), open(os.path.join(folder, "stopped"), "wb"):
        pass  # on a full disk, a run that runs is ended all the same
    os.close(lock)
    deadline = time.monotonic() + 2 * state.GRACE_SECONDS
    state.end_all(os.path.basename(folder))
    while state.is_alive(folder):
        if time.monotonic() > deadline:
            raise state.Refused(f"{folder}: the run's supervisor does not end; end it by hand")
        time.sleep(0.02)
        state.end_all(os.path.basename(folder))
    for name in os.listdir(folder):
        if name not in ("lock", "stopped"):
            os.remove(os.path.join(folder, name))
    return {}


def clean(folder: str) -> Answer:
    """Remove the folder of a run that has ended."""
    if not state.is_alive(folder):
        shutil.rmtree(folder, ignore_errors=True)
    return {}


ACTIONS: Dict[str, Callable[..., Answer]] = {
    "start": start,
    "watch": watch,
    "collect": collect,
    "stop": stop,
    "clean": clean,
}
