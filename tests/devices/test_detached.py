import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sshd import running_sshd

from edgekit.devices.address import parse_address
from edgekit.devices.detached import PARTS, run_detached
from edgekit.devices.device import ConnectionLost
from edgekit.devices.here import Here
from edgekit.devices.program import call
from edgekit.devices.ssh import open_ssh
from edgekit.errors import OutsideFailure

THREE_LINES = """
import sys, time
for number in range(3):
    print("line", number, file=sys.stderr)
    time.sleep(0.02)
print("x" * 100000)
"""
# What it starts is in a session of its own, and ignores the polite signal.
STUBBORN_FAMILY = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]], start_new_session=True)
print("begun", file=sys.stderr)
time.sleep(600)
"""
FAMILY = STUBBORN_FAMILY.replace("SIG_IGN", "SIG_DFL")


def silent(line):
    pass


def run(root, program, *, device=None, seconds=60, patience=20, detail=silent, **more):
    """Run a Python program detached; the device's folder is in its command line, so that it can be found."""
    command = [sys.executable, "-c", program, str(root)]
    place = (device or Here(), sys.executable, str(root), command)
    return run_detached(*place, seconds=seconds, patience=patience, detail=detail, **more)


def act(root, action, name, *arguments):
    return call(Here(), sys.executable, "detached", [action, str(root), name, *arguments], parts=PARTS)


def processes_of(root):
    """Command lines of the processes that name the folder: the run, what it started, and its supervisor."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(root) in command:
                found[int(path.parent.name)] = command
    return found


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def root(tmp_path):
    """Edgekit's folder on the device; at the end of the test nothing of it runs."""
    yield tmp_path / "edgekit"
    left = processes_of(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == {}


def runs(root):
    return list((root / "runs").iterdir())


def test_a_run_gives_status_output_and_each_line_of_progress_once(root):
    lines = []
    finished = run(root, THREE_LINES + "sys.exit(3)", detail=lines.append)
    assert lines == ["line 0", "line 1", "line 2"]
    assert (finished.status, finished.printed, finished.last) == (3, "x" * 100000 + "\n", "line 2")
    assert not finished.rebooted
    assert runs(root) == []


def test_a_run_that_a_signal_ended_gives_128_and_its_number(root):
    assert run(root, "import os; os.kill(os.getpid(), 11)").status == 128 + signal.SIGSEGV


def test_a_last_line_without_an_end_counts_too(root):
    assert run(root, "import sys; sys.stderr.write('one\\ntwo')").last == "two"


def test_a_program_that_is_not_there_ends_with_127_and_is_named(root):
    finished = run_detached(
        Here(), sys.executable, str(root), ["/not/there"], seconds=9, patience=9, detail=silent
    )
    assert (finished.status, finished.last) == (127, "/not/there: No such file or directory")


def test_output_of_many_megabytes_and_many_lines_arrive_whole(root):
    program = """
import sys
for number in range(20000):
    print(f"line {number}", file=sys.stderr)
for number in range(1000000):
    print(f"figure {number}")
"""
    lines = []
    finished = run(root, program, detail=lines.append)
    assert lines == [f"line {number}" for number in range(20000)]
    assert finished.printed == "".join(f"figure {number}\n" for number in range(1000000))


def test_what_a_run_leaves_behind_is_ended_with_it(root):
    assert run(root, FAMILY.rpartition("time.sleep")[0]).status == 0
    assert processes_of(root) == {}


def test_a_run_that_takes_too_long_is_ended_with_all_it_started(root):
    lines = []
    with pytest.raises(OutsideFailure, match="local: did not finish in 1 s; try `--quick`"):
        run(root, STUBBORN_FAMILY, seconds=1, detail=lines.append)
    assert lines == ["begun"]
    assert processes_of(root) == {}
    assert runs(root) == []


def test_the_device_keeps_the_time_when_nobody_watches(root):
    act(root, "start", "abc", "0.5", sys.executable, "-c", FAMILY, str(root))
    wait_until((root / "runs/abc/status.json").is_file)
    assert json.loads((root / "runs/abc/status.json").read_text())["timed_out"]
    wait_until(lambda: processes_of(root) == {})


def test_a_second_start_of_a_run_does_nothing(root):
    program = "open('ran', 'a').write('once'); import time; time.sleep(1)"
    starts = [
        threading.Thread(
            target=act, args=(root, "start", "abc", "60", sys.executable, "-c", program, str(root))
        )
        for _ in range(3)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    wait_until((root / "runs/abc/status.json").is_file)
    act(root, "start", "abc", "60", sys.executable, "-c", program, str(root))
    wait_until(lambda: processes_of(root) == {})
    assert (root / "runs/abc/ran").read_text() == "once"


def test_a_run_that_was_stopped_before_it_began_never_begins(root):
    act(root, "stop", "abc")
    act(root, "start", "abc", "60", sys.executable, "-c", FAMILY, str(root))
    assert processes_of(root) == {}


def test_a_run_whose_supervisor_was_killed_is_told_and_leaves_nothing(root):
    def kill_the_supervisor(line):
        [supervisor] = [pid for pid, command in processes_of(root).items() if " start " in command]
        os.kill(supervisor, signal.SIGKILL)

    with pytest.raises(OutsideFailure, match="local: the run was killed on the device after it said: begun"):
        run(root, FAMILY, detail=kill_the_supervisor)
    assert processes_of(root) == {}


def test_a_run_that_the_kernel_ended_for_lack_of_memory_says_so(root, little_memory):
    program = f"open({str(little_memory / 'cgroup.procs')!r}, 'w').write('0'); bytearray(256 << 20)"
    finished = run(root, program)
    assert (finished.status, finished.out_of_memory) == (128 + signal.SIGKILL, True)
    assert not run(root, "import os; os.kill(os.getpid(), 9)").out_of_memory


@pytest.fixture
def little_memory():
    """The folder of a control group that may use 64 MB."""
    base = Path("/sys/fs/cgroup/memory")
    folder = (base if base.is_dir() else base.parent) / f"edgekit-test-{os.getpid()}"
    folder.mkdir()
    limit = "memory.limit_in_bytes" if base.is_dir() else "memory.max"
    (folder / limit).write_text(str(64 << 20))
    yield folder
    wait_until(lambda: (folder / "cgroup.procs").read_text() == "")
    folder.rmdir()


@pytest.fixture
def small_disk(root):
    """Edgekit's folder lies on a disk of 1 MB."""
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root], check=True)
    yield root
    subprocess.run(["umount", root], check=True)


def test_a_disk_that_is_full_at_the_start_is_one_line(small_disk):
    with contextlib.suppress(OSError):
        (small_disk / "large").write_bytes(bytes(2 << 20))
    with pytest.raises(
        OutsideFailure, match=r"runs/\w+: No space left on device; free some space there"
    ) as caught:
        run(small_disk, THREE_LINES)
    assert "\n" not in str(caught.value)


def test_a_disk_that_gets_full_during_the_run_is_told(small_disk):
    with pytest.raises(OutsideFailure, match=r"local: the disk is full: .*; free some space there"):
        run(small_disk, "import sys; sys.stdout.write('x' * (2 << 20))")


def test_folders_of_old_runs_are_removed_at_the_next_start(root):
    act(root, "start", "01d", "60", sys.executable, "-c", "", str(root))
    act(root, "start", "0e3", "60", sys.executable, "-c", "", str(root))
    wait_until(lambda: processes_of(root) == {})
    week_ago = time.time() - 8 * 86400
    os.utime(root / "runs/01d", (week_ago, week_ago))
    run(root, "")
    assert [path.name for path in runs(root)] == ["0e3"]


class Shaky(Here):
    """This machine over a connection that breaks at one moment, counted in what is done over it.

    With `goes_on`, what ran over the connection goes on, as a server that has not noticed lets it.
    """

    def __init__(self, breaks_at, *, goes_on=False):
        self.moments, self.breaks_at, self.goes_on = 0, breaks_at, goes_on
        self.reconnected, self.left = 0, []

    def pass_by(self):
        self.moments += 1
        if self.moments == self.breaks_at:
            raise ConnectionLost("the cable is out", where="local")

    def start(self, command, *, silence=60.0):
        self.pass_by()
        return ShakyProcess(self, super().start(command, silence=silence))

    def reconnect(self, **_):
        self.reconnected += 1


class ShakyProcess:
    def __init__(self, device, process):
        self.device, self.process = device, process

    def __getattr__(self, name):
        if name in ("write", "end_input", "read", "status"):
            self.device.pass_by()
        return getattr(self.process, name)

    def stop(self):
        if self.device.moments == self.device.breaks_at and self.device.goes_on:
            self.device.left.append(self.process)
        else:
            self.process.stop()


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_connection_that_breaks_at_any_moment_changes_nothing(root, goes_on):
    count = root.parent / "count"
    program = f"open({str(count)!r}, 'a').write('x')\n" + THREE_LINES
    broken = 0
    for moment in range(1, 200):
        device, lines = Shaky(moment, goes_on=goes_on), []
        finished = run(root, program, device=device, detail=lines.append)
        assert (finished.status, finished.printed, finished.last) == (0, "x" * 100000 + "\n", "line 2")
        assert [line for line in lines if "connection" not in line] == ["line 0", "line 1", "line 2"]
        assert count.read_text() == "x" * moment
        broken += device.reconnected
        for process in device.left:
            process.stop()
        if device.moments < moment:
            break
    assert broken == moment - 1 > 15


class Deaf(Here):
    """Connects, and then nothing more comes."""

    def start(self, *_, **__):
        raise ConnectionLost("nothing", where="local")


def test_a_device_that_stays_away_is_waited_for_and_not_longer(root):
    begun = time.monotonic()
    with pytest.raises(
        OutsideFailure, match=r"local: gone for 3 s; what the run prints will be in .*/runs/\w+/out"
    ):
        run(root, "", device=Deaf(), patience=3)
    assert 3 <= time.monotonic() - begun < 6


def test_an_event_stops_the_run_on_the_device(root):
    stopped = threading.Event()

    def stop(line):
        stopped.set()

    with pytest.raises(OutsideFailure, match="local: stopped"):
        run(root, FAMILY, stopped=stopped, detail=stop)
    assert processes_of(root) == {}


def test_an_error_of_the_callers_own_stops_the_run_too(root):
    def fail(line):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(root, FAMILY, detail=fail)
    assert processes_of(root) == {}


INTERRUPTED = """
import sys
from edgekit.devices.detached import run_detached
from edgekit.devices.here import Here
root, program = sys.argv[1:]
run_detached(
    Here(), sys.executable, root, [sys.executable, "-c", program, root], seconds=60, patience=20,
    detail=lambda line: print(line, flush=True),
)
"""


def interrupted(program, root, run_there):
    """A program that was sent what Ctrl-C sends while the run goes on."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, root, run_there],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    assert len(processes_of(root)) >= 4  # it, the supervisor, the run and what that started
    process.send_signal(signal.SIGINT)
    return process


@pytest.mark.parametrize("run_there", [FAMILY, STUBBORN_FAMILY])
def test_ctrl_c_leaves_no_process_on_the_device(root, run_there):
    process = interrupted(INTERRUPTED, root, run_there)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    wait_until(lambda: processes_of(root) == {})


class Machine(Here):
    """A machine that can be rebooted: its processes have an init of their own and end with it."""

    name = "machine"

    def __init__(self):
        self.boot()

    def boot(self):
        init = ["sh", "-c", "trap '' CHLD; exec sleep infinity"]
        self.outside = subprocess.Popen(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *init])
        children = Path(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children")
        wait_until(children.read_text)
        self.init = children.read_text().strip()
        wait_until(lambda: Path(f"/proc/{self.init}/comm").read_text() == "sleep\n")

    def power_off(self):
        self.outside.kill()
        self.outside.wait()
        wait_until(lambda: not Path(f"/proc/{self.init}/ns/pid").exists())

    def shut_down(self):
        """As an init does it: everything is asked to end first."""
        subprocess.run(["nsenter", "-t", self.init, "-p", "-m", "kill", "-TERM", "--", "-1"], check=True)
        time.sleep(0.5)
        self.power_off()

    def start(self, command, *, silence=60.0):
        if self.outside.poll() is not None:
            raise ConnectionLost("no route", where=self.name)
        return super().start(["nsenter", "-t", self.init, "-p", "-m", *command], silence=silence)

    def reconnect(self, **_):
        if self.outside.poll() is not None:
            self.boot()


@pytest.fixture
def machine():
    machine = Machine()
    yield machine
    machine.power_off()


@pytest.mark.parametrize("way", ["power_off", "shut_down"])
def test_a_run_is_done_again_after_a_reboot_and_the_result_says_so(root, machine, way):
    lines = []

    def reboot_once(line):
        lines.append(line)
        if lines.count("begun") == 1 and line == "begun":
            getattr(machine, way)()

    program = "import sys, time; print('begun', file=sys.stderr); time.sleep(1); print('done')"
    finished = run(root, program, device=machine, detail=reboot_once)
    assert (finished.status, finished.printed, finished.rebooted) == (0, "done\n", True)
    assert "the device rebooted during the run; running it again" in lines
    assert runs(root) == []


def test_a_run_that_had_ended_before_the_reboot_is_collected_and_not_done_again(root, machine):
    def reboot_at_the_end(line):
        wait_until(lambda: list(root.glob("runs/*/status.json")))
        machine.power_off()

    finished = run(
        root,
        "import sys; print('begun', file=sys.stderr); print('done')",
        device=machine,
        detail=reboot_at_the_end,
    )
    assert (finished.status, finished.printed, finished.rebooted) == (0, "done\n", False)


def test_a_second_reboot_is_refused_with_what_to_look_at(root, machine):
    def reboot(line):
        if line == "begun":
            machine.power_off()

    with pytest.raises(
        OutsideFailure, match="machine: the device rebooted twice during the run; look at its power"
    ):
        run(root, FAMILY, device=machine, detail=reboot)
    assert processes_of(root) == {}


@pytest.fixture
def server(tmp_path, monkeypatch):
    with running_sshd(tmp_path / "sshd") as server:
        monkeypatch.setenv("HOME", str(server.make_client(tmp_path / "me")))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        yield server


@pytest.fixture
def over_ssh(server):
    device = open_ssh(parse_address(server.address))
    yield device
    device.close()


SLOW_LINES = THREE_LINES.replace("0.02", "1")


@pytest.mark.parametrize("way", ["cut_connections", "restart"])
def test_a_run_survives_that_the_server_loses_its_connections(root, server, over_ssh, way):
    lines = []

    def lose(line):
        lines.append(line)
        if line in ("line 0", "line 2"):  # in the middle, and at the end
            getattr(server, way)()

    finished = run(root, SLOW_LINES, device=over_ssh, detail=lose)
    assert (finished.status, finished.printed, finished.last) == (0, "x" * 100000 + "\n", "line 2")
    assert [line for line in lines if line.startswith("line")] == ["line 0", "line 1", "line 2"]
    assert lines.count("the connection broke; the run goes on there") == 2
    assert runs(root) == []


def test_a_run_goes_on_while_the_server_is_stopped(root, server, over_ssh):
    lines = []

    def stop_for_a_while(line):
        lines.append(line)
        if line == "line 0":
            server.stop()
            threading.Timer(4, server.start).start()

    finished = run(root, SLOW_LINES, device=over_ssh, detail=stop_for_a_while)
    assert (finished.status, finished.printed, finished.rebooted) == (0, "x" * 100000 + "\n", False)
    assert [line for line in lines if line.startswith("line")] == ["line 0", "line 1", "line 2"]


def test_a_server_that_stays_away_is_told_with_where_the_result_will_be(root, server, over_ssh):
    def stop(line):
        if line == "line 0":
            server.stop()

    with pytest.raises(
        OutsideFailure, match=r"the connection was lost and did not come back within 3 s: .*; what the"
    ):
        run(root, SLOW_LINES, device=over_ssh, detail=stop, patience=3)
    [folder] = runs(root)
    wait_until(lambda: processes_of(root) == {})
    assert (folder / "out").read_text() == "x" * 100000 + "\n"


def test_ctrl_c_over_ssh_leaves_no_process_on_the_device(root, server):
    imports = "from edgekit.devices.ssh import open_ssh\nfrom edgekit.devices.address import parse_address\n"
    program = imports + INTERRUPTED.replace("Here()", f"open_ssh(parse_address({server.address!r}))")
    process = interrupted(program, root, FAMILY)
    assert process.wait(timeout=30) != 0
    wait_until(lambda: processes_of(root) == {})
    wait_until(lambda: server.connections() == [])
