"""Boards in containers: real engine, real arm64 programs."""

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
from emulated import image
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.container import open_container
from edgekit.devices.container_home import LABEL
from edgekit.devices.container_process import Frames
from edgekit.devices.device import ConnectionLost, run, started
from edgekit.emulation.board import cache_folder, folder
from edgekit.emulation.engine import connect
from edgekit.errors import BadInput, OutsideFailure

MEGABYTES = 5_000_000
# Signed dot product of bytes, then return: SDOT V0.4S, V1.16B, V2.16B; RET. A Cortex-A72 lacks the first.
DOT_PRODUCT = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("2094824e c0035fd6"))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print("ran")
"""
FACTS = """
import json, os, platform, socket
def writable(folder):
    try:
        open(folder + "/x", "w").close()
        return True
    except OSError:
        return False
def status(key):
    return [line.split()[1] for line in open("/proc/self/status") if line.startswith(key)][0]
print(json.dumps({
    "machine": platform.machine(),
    "writable": list(filter(writable, ("/", "/etc", "/usr", "/tmp", os.path.expanduser("~")))),
    "links": [name for _, name in socket.if_nameindex()],
    "capabilities": [status("CapEff"), status("CapBnd")],
    "no new privileges": status("NoNewPrivs"),
    "root": os.getuid() == 0,
    "first": open("/proc/1/comm").read().strip(),
    "in memory": [line.split()[1] for line in open("/proc/mounts") if line.startswith("tmpfs /tmp ")],
}))
"""
FILL = "data = bytearray({})\nfor place in range(0, len(data), 4096): data[place] = 1\nprint('fits')"
OWNER = """
import sys, time
from edgekit.devices.container import open_container
from edgekit.devices.device import run
device = open_container("rpi4", detail=lambda line: None)
process = device.start(["sleep", "600"])
print(device.id, flush=True)
sys.stdin.read()
"""


def quiet(line):
    """Takes a line of progress."""


@pytest.fixture(scope="module", autouse=True)
def engine():
    """The engine, running, with the image of the boards."""
    image()
    with contextlib.closing(connect()) as client:
        yield client


@pytest.fixture(scope="module")
def board():
    """A Raspberry Pi 4 that these tests share."""
    with contextlib.closing(open_container("rpi4", detail=quiet)) as device:
        yield device


def python(device, program):
    return run(device, ["python3", "-c", program])


def processes(device):
    """The names of what runs there, less those that look."""
    look = "for i in /proc/[0-9]*; do [ $i = /proc/$$ ] || cat $i/comm; done"
    return sorted(run(device, ["sh", "-c", look]).stdout.decode().split())


def there(engine):
    """The identifiers of all containers."""
    return {one["Id"] for one in engine.api.containers(all=True)}


def own(folder, text, name="mine"):
    (folder / "targets").mkdir()
    (folder / "targets" / f"{name}.yaml").write_text(text)


def test_the_container_is_the_board_and_nothing_more(board):
    done = python(board, FACTS)
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == {
        "machine": "aarch64",
        "writable": ["/tmp", "/home/edge"],
        "links": ["lo"],
        "capabilities": ["0000000000000000"] * 2,
        "no new privileges": "1",
        "root": False,
        "first": "docker-init",
        "in memory": [],
    }


def test_the_container_says_the_board_s_processor_and_memory(board):
    said = run(board, ["cat", "/proc/cpuinfo", "/proc/meminfo"]).stdout.decode()
    assert said.startswith((folder() / "cpuinfo-rpi4.txt").read_text())
    assert "MemTotal:         4194335 kB\n" in said
    assert (board.name, board.is_here) == ("container:rpi4", True)


def test_a_program_s_streams_come_apart_with_its_status(board):
    done = run(board, ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
        (["/tmp"], 126),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -SEGV $$"], 139),
        (["sh", "-c", "kill -TERM $$"], 143),
    ],
)
def test_every_end_of_a_program_has_its_status(board, command, status):
    done = run(board, command)
    assert done.status == status
    assert done.stdout == b""


def test_arguments_reach_the_program_as_they_are(board):
    words = ["a b", "$HOME", "'", '"', "*", "ü", ""]
    done = run(board, ["python3", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *words])
    assert json.loads(done.stdout) == words


def test_five_megabytes_go_in_while_they_come_out(board):
    given = os.urandom(MEGABYTES)
    with started(board, ["cat"]) as process:

        def write():
            process.write(given)
            process.end_input()

        writer = threading.Thread(target=write)
        writer.start()
        pieces = list(iter(process.read, None))
        writer.join()
        assert process.status() == 0
    assert {stream for stream, _ in pieces} == {"out"}
    assert b"".join(piece for _, piece in pieces) == given


def test_what_a_program_says_at_once_is_not_lost(board):
    assert all(run(board, ["echo", "first"]).stdout == b"first\n" for _ in range(20))


def test_a_program_that_ended_takes_no_input_and_still_tells_its_status(board):
    with started(board, ["sh", "-c", "echo no; exit 3"]) as process:
        with pytest.raises(BrokenPipeError):
            process.write(bytes(MEGABYTES))
        assert list(iter(process.read, None)) == [("out", b"no\n")]
        assert process.status() == 3


def test_silence_counts_as_a_lost_connection(board):
    start = time.monotonic()
    with started(board, ["sleep", "600"], silence=1) as process, pytest.raises(ConnectionLost, match="1 s"):
        process.read()
    assert time.monotonic() - start < 30


def test_input_that_nobody_takes_counts_as_a_lost_connection(board):
    with started(board, ["sleep", "600"], silence=1) as process, pytest.raises(ConnectionLost, match="1 s"):
        process.write(bytes(MEGABYTES))


def test_a_stopped_program_is_gone_with_its_children_and_the_others_stay(board):
    with started(board, ["sleep", "601"]) as other:
        with started(board, ["sh", "-c", "sleep 602 & sleep 602; true"]):
            while processes(board).count("sleep") < 3:
                pass
        assert processes(board) == ["cat", "docker-init", "sleep"]
        other.stop()
        assert processes(board) == ["cat", "docker-init"]


def test_no_file_stays_open(board):
    run(board, ["true"])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        run(board, ["true"])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_an_instruction_that_the_board_lacks_kills_the_program(board):
    assert python(board, DOT_PRODUCT).status == 128 + signal.SIGILL
    with contextlib.closing(open_container("rpi5", detail=quiet)) as newer:
        assert python(newer, DOT_PRODUCT).stdout == b"ran\n"


def test_more_memory_than_the_board_has_kills_the_program_and_is_told_once():
    with contextlib.closing(open_container("rpi-zero2w", detail=quiet)) as small:
        assert python(small, FILL.format(400_000_000)).stdout == b"fits\n"
        assert small.trouble() is None
        assert python(small, FILL.format(700_000_000)).status == 128 + signal.SIGKILL
        memory = small.memory()
        assert (memory.board_mb, memory.limit_mb, memory.kills) == (537, 687, 1)
        assert 680 < memory.peak_mb <= 687
        assert small.trouble() == (
            "the memory limit of 687 MB (the board's 537 and 150 for the emulator) ended a process; "
            "the peak was 687 MB"
        )
        assert small.trouble() is None


def test_the_container_has_no_more_cores_than_the_board(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own(tmp_path, "extends: rpi4\nprofile: {extends: rpi4, cores: 1}\n")
    with contextlib.closing(open_container("mine", detail=quiet)) as device:
        assert python(device, "import os; print(len(os.sched_getaffinity(0)))").stdout == b"1\n"


def test_a_folder_of_this_machine_may_be_read_there_and_not_written(tmp_path):
    (tmp_path / "word").write_text("there\n")
    tmp_path.chmod(0o755)
    with contextlib.closing(open_container("rpi4", detail=quiet, mounts={"/given": tmp_path})) as device:
        done = run(device, ["sh", "-c", "cat /given/word; touch /given/new"])
    assert (done.status, done.stdout) == (1, b"there\n")
    assert "Read-only file system" in done.stderr


def test_nothing_is_left_of_a_closed_container(engine):
    device = open_container("rpi4", detail=quiet)
    place = Path(engine.containers.get(device.id).labels[LABEL])
    assert (place / "home").is_dir()
    device.close()
    assert device.id not in there(engine)
    assert not place.exists()
    device.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_container_of_an_edgekit_that_is_killed_goes_with_it(engine, number):
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with owner:
        name = owner.stdout.readline().decode().strip()
        place = Path(engine.containers.get(name).labels[LABEL])
        owner.send_signal(number)
        owner.wait(30)
    end = time.monotonic() + 30
    while name in there(engine) and time.monotonic() < end:
        time.sleep(0.1)
    assert name not in there(engine)
    open_container("rpi4", detail=quiet).close()
    assert not place.exists()


def test_a_container_that_was_never_started_is_removed_at_the_next_start(engine, board):
    place = cache_folder() / "containers" / "killed"
    place.mkdir()
    (place / "lock").touch()
    left = engine.containers.create(image(), ["cat"], platform="linux/arm64", labels={LABEL: str(place)})
    open_container("rpi4", detail=quiet).close()
    assert left.id not in there(engine)
    assert not place.exists()
    assert run(board, ["true"]).status == 0, "that of a living edgekit stays"


def test_a_container_that_is_gone_is_a_lost_connection_and_does_not_come_back(engine):
    with contextlib.closing(open_container("rpi4", detail=quiet)) as device:
        device.reconnect(patience=1, detail=quiet)
        process = device.start(["sleep", "600"])
        engine.containers.get(device.id).remove(force=True)
        assert process.read() is None
        with pytest.raises(ConnectionLost, match="is gone: "):
            process.status()
        process.stop()
        with pytest.raises(OutsideFailure, match=r"^container:rpi4: is gone: "):
            device.reconnect(patience=1, detail=quiet)
        assert device.trouble().startswith("is gone: ")


def test_a_core_that_qemu_does_not_know_is_said_in_qemu_s_words(tmp_path, monkeypatch, engine):
    monkeypatch.chdir(tmp_path)
    own(tmp_path, "extends: rpi4\nprofile: {extends: rpi4, emulation: {cpu: cortex-a99, cpuinfo: rpi4}}\n")
    with pytest.raises(OutsideFailure, match=r"container:mine: nothing runs in it: .*cortex-a99"):
        open_container("mine", detail=quiet)
    assert not engine.api.containers(all=True, filters={"label": "edgekit=mine"})


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("rpi44", "did you mean `rpi4`"),
        ("x86-cpu", "container:x86-cpu: the profile x86-cpu has no `emulation`.*these can: jetson-nano"),
    ],
)
def test_a_board_that_cannot_be_imitated_is_bad_input(name, line):
    with pytest.raises(BadInput, match=line):
        open_container(name, detail=quiet)


def test_a_cpuinfo_that_is_not_there_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own(tmp_path, "extends: rpi4\nprofile: {extends: rpi4, emulation: {cpu: cortex-a72, cpuinfo: rpi9}}\n")
    with pytest.raises(BadInput, match="there is no cpuinfo `rpi9`; there is cortex-a76, jetson-nano"):
        open_container("mine", detail=quiet)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=10),
    st.lists(st.integers(1, 30), min_size=1),
)
def test_frames_come_out_whole_however_they_are_cut(frames, cuts):
    sent = b"".join(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in frames)
    reader, got, place, turn = Frames(), {"out": b"", "err": b""}, 0, 0
    while place < len(sent):
        reader.add(sent[place : place + cuts[turn % len(cuts)]])
        place, turn = place + cuts[turn % len(cuts)], turn + 1
        while (piece := reader.next()) is not None:
            assert piece[1] != b""
            got[piece[0]] += piece[1]
    assert got == {
        name: b"".join(data for kind, data in frames if kind == number)
        for name, number in (("out", 1), ("err", 2))
    }
