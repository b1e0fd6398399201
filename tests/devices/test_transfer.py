import ast
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sshd import descendants, is_alive, name_of, running_sshd

from edgekit.devices.address import parse_address
from edgekit.devices.here import Here
from edgekit.devices.program import ROOT, call, opened
from edgekit.devices.ssh import open_ssh
from edgekit.devices.transfer import send
from edgekit.errors import BadInput, OutsideFailure, VerificationFailed
from edgekit.ondevice.remote import receive

PYTHON = "/usr/bin/python3"  # the device's
UNDER_WAY = 8_000_000  # at most, between the two ends: windows, pipes and sockets


@pytest.fixture
def server(tmp_path, monkeypatch):
    with running_sshd(tmp_path / "sshd") as server:
        monkeypatch.setenv("HOME", str(server.make_client(tmp_path / "me")))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        yield server


@pytest.fixture
def device(server):
    device = open_ssh(parse_address(server.address))
    yield device
    device.close()


@pytest.fixture
def root(tmp_path):
    """Edgekit's folder on this machine, as far as these tests go."""
    return tmp_path / "there"


def quiet(line):
    assert line


def put(files, root, device=None, folder="bundles/x", detail=quiet):
    python = sys.executable if device is None else PYTHON
    return send(device or Here(), python, str(root), files, folder, patience=30, detail=detail)


def make(folder, sizes):
    """Files of these sizes with random content, by name."""
    folder.mkdir(exist_ok=True)
    for name, size in sizes.items():
        (folder / name).write_bytes(os.urandom(size))
    return {name: folder / name for name in sizes}


def store(root):
    return sorted(path.name for path in (root / "store").iterdir())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_arrive_as_they_are_with_their_folders_and_their_mode(device, server, tmp_path):
    files = make(tmp_path / "here", {"model": 3_000_000, "empty": 0, "run.py": 1000})
    files["run.py"].chmod(0o755)
    sent = put({**files, "golden/a b ä.npz": files["model"]}, server.root, device)
    there = server.root / "bundles" / "x"
    assert (sent.bytes_sent, sent.bytes_there, sent.files) == (3_001_000, 0, 4)
    assert {name: digest(there / name) for name in files} == {
        name: digest(path) for name, path in files.items()
    }
    assert digest(there / "golden" / "a b ä.npz") == digest(files["model"])
    assert os.access(there / "run.py", os.X_OK)
    assert (there / "model").stat().st_mode & 0o777 == 0o444
    assert (there / "model").samefile(server.root / "store" / digest(files["model"]))
    assert store(server.root) == sorted({digest(path) for path in files.values()})


def test_what_is_there_is_not_sent_again(device, server, tmp_path):
    files = make(tmp_path / "here", {"a": 100_000, "b": 200_000})
    put(files, server.root, device)
    again = put({**files, **make(tmp_path / "more", {"c": 7})}, server.root, device, folder="bundles/y")
    assert (again.bytes_sent, again.bytes_there) == (7, 300_000)
    assert digest(server.root / "bundles" / "y" / "a") == digest(files["a"])


class Slow(Here):
    """A device whose output comes in one piece, as it does over a busy link."""

    def start(self, command, *, silence=60.0):
        process = super().start(command, silence=silence)
        pieces = iter(process.read, None)

        def read():
            printed = b"".join(data for stream, data in pieces if stream == "out")
            return ("out", printed) if printed else None

        process.read = read
        return process


def test_both_answers_of_a_device_that_has_all_may_come_at_once(root, tmp_path):
    files = make(tmp_path / "here", {"a": 5000, "b": 0})
    put(files, root)
    sent = put(files, root, device=Slow())
    assert (sent.bytes_sent, sent.bytes_there) == (0, 5000)


def test_a_damaged_file_of_the_store_is_sent_again(device, server, tmp_path):
    files = make(tmp_path / "here", {"a": 100_000, "b": 200_000})
    put(files, server.root, device)
    damaged = server.root / "store" / digest(files["a"])
    with damaged.open("r+b") as file:
        file.write(b"damage")
    again = put(files, server.root, device)
    assert (again.bytes_sent, again.bytes_there) == (100_000, 200_000)
    assert digest(server.root / "bundles" / "x" / "a") == digest(files["a"])


def test_a_damaged_part_is_sent_from_its_beginning(root, tmp_path):
    files = make(tmp_path / "here", {"a": 100_000})
    (root / "store").mkdir(parents=True)
    (root / "store" / f"{digest(files['a'])}.part").write_bytes(bytes(40_000))
    sent = put(files, root)
    assert sent.bytes_sent == 60_000 + 100_000
    assert digest(root / "bundles" / "x" / "a") == digest(files["a"])


def test_a_part_is_gone_on_with(root, tmp_path):
    files = make(tmp_path / "here", {"a": 100_000})
    (root / "store").mkdir(parents=True)
    (root / "store" / f"{digest(files['a'])}.part").write_bytes(files["a"].read_bytes()[:40_000])
    sent = put(files, root)
    assert (sent.bytes_sent, sent.bytes_there) == (60_000, 40_000)
    assert store(root) == [digest(files["a"])]


def test_a_file_takes_the_place_of_an_older_one_at_once(root, tmp_path):
    put(make(tmp_path / "here", {"a": 100}), root)
    newer = make(tmp_path / "newer", {"a": 200})
    newer["a"].chmod(0o755)
    put(newer, root)
    assert digest(root / "bundles" / "x" / "a") == digest(newer["a"])
    assert sorted(path.name for path in (root / "bundles" / "x").iterdir()) == ["a"]


def test_a_thousand_small_files_arrive(device, server, tmp_path):
    files = make(tmp_path / "here", {f"{number}": 500 + number for number in range(1000)})
    assert put(files, server.root, device).bytes_sent == sum(500 + number for number in range(1000))
    there = server.root / "bundles" / "x"
    assert all((there / name).read_bytes() == path.read_bytes() for name, path in files.items())


@pytest.mark.parametrize("how", ["cut_connections", "restart"])
def test_a_connection_that_breaks_is_taken_up_and_nothing_is_sent_twice(device, server, tmp_path, how):
    files = make(tmp_path / "here", {"a": 150_000_000, "b": 50_000_000})
    told = []
    held = []

    def detail(line):
        told.append(line)
        if line.startswith("sending") and len(held) < 2:
            getattr(server, how)()
            held.append(sum(path.stat().st_size for path in (server.root / "store").glob("*")))

    with every_piece_is_told():
        sent = put(files, server.root, device, detail=detail)
    assert [line for line in told if "the connection broke; going on" in line]
    assert held[1] > held[0] > 0
    assert 200_000_000 <= sent.bytes_sent <= 200_000_000 + 2 * UNDER_WAY
    assert digest(server.root / "bundles" / "x" / "a") == digest(files["a"])
    assert digest(server.root / "bundles" / "x" / "b") == digest(files["b"])
    assert store(server.root) == sorted(digest(path) for path in files.values())


@contextlib.contextmanager
def every_piece_is_told():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.devices.transfer.PROGRESS_S", 0.05)
        yield


def test_a_cable_that_is_put_back_in_time_costs_nothing(device, server, tmp_path):
    files = make(tmp_path / "here", {"a": 100_000_000})
    thawed = threading.Event()

    def detail(line):
        if line.startswith("sending") and not thawed.is_set():
            thawed.set()
            frozen = server.frozen()
            frozen.__enter__()
            threading.Timer(2, frozen.__exit__, (None, None, None)).start()

    with every_piece_is_told():
        sent = put(files, server.root, device, detail=detail)
    assert thawed.is_set()
    assert sent.bytes_sent == 100_000_000
    assert sent.seconds > 2
    assert digest(server.root / "bundles" / "x" / "a") == digest(files["a"])


def test_a_receiver_that_a_broken_connection_left_waiting_is_ended_and_its_part_gone_on_with(root, tmp_path):
    files = make(tmp_path / "here", {"a": 100_000})
    request = {
        "root": str(root),
        "folder": "x",
        "token": "5ender",
        "files": [{"sha256": digest(files["a"]), "size": 100_000, "name": "a", "executable": False}],
    }
    line = json.dumps(request).encode() + b"\n"
    content = files["a"].read_bytes()
    with opened(Here(), sys.executable, "receive", ["receive"]) as left:
        left.write(line)
        assert line_of(left) == {"parts": {digest(files["a"]): 0}}
        left.write(content[:70_000])
        part = root / "store" / f"{digest(files['a'])}.part"
        wait_for(lambda: part.stat().st_size == 70_000)
        pid = (root / "store" / "sender-5ender").read_text()
        assert is_alive(pid)
        with opened(Here(), sys.executable, "receive", ["receive"]) as later:
            later.write(line)
            assert line_of(later) == {"parts": {digest(files["a"]): 70_000}}
            assert not is_alive(pid)
            later.write(content[70_000:])
            assert line_of(later) == {"arrived": 30_000, "damaged": []}
            assert later.read() is None
            assert later.status() == 0
    assert digest(root / "x" / "a") == digest(files["a"])


def line_of(process):
    """The next line that it prints, as JSON."""
    printed = b""
    while not printed.endswith(b"\n"):
        printed += process.read()[1]
    return json.loads(printed)


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_may_send_the_same_file_at_once(server, tmp_path):
    files = make(tmp_path / "here", {"a": 30_000_000, "b": 10_000_000})
    failures = []

    def go(number):
        device = open_ssh(parse_address(server.address))
        try:
            put(files, server.root, device, folder=f"bundles/{number}")
        except OutsideFailure as error:
            failures.append(error)
        finally:
            device.close()

    threads = [threading.Thread(target=go, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number in range(3):
        for name, path in files.items():
            assert digest(server.root / "bundles" / str(number) / name) == digest(path)
    assert store(server.root) == sorted(digest(path) for path in files.values())


@pytest.fixture
def small_disk(root):
    """Edgekit's folder on a disk of its own, 40 MB large."""
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", root], check=True)
    yield root
    subprocess.run(["umount", root], check=True)


def test_a_disk_without_room_is_said_before_anything_is_sent(device, small_disk, tmp_path):
    files = make(tmp_path / "here", {"a": 30_000_000, "b": 20_000_000})
    sent = []
    with pytest.raises(OutsideFailure) as caught:
        put(files, small_disk, device, detail=sent.append)
    assert f"{small_disk} has no room: 51.1 MB are needed and 41.9 MB are free; free some space there" in str(
        caught.value
    )
    assert not [line for line in sent if line.startswith("sending")]
    assert not (small_disk / "bundles").exists()
    assert store(small_disk) == []


def test_a_disk_that_gets_full_in_the_middle_is_one_line_and_leaves_nothing(device, small_disk, tmp_path):
    files = make(tmp_path / "here", {"a": 20_000_000, "b": 15_000_000})
    filler = small_disk / "somebody else's"

    def detail(line):
        if line.startswith("sending") and not filler.exists():
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()

    with every_piece_is_told(), pytest.raises(OutsideFailure) as caught:
        put(files, small_disk, device, detail=detail)
    assert str(caught.value).endswith("the disk is full; free some space there")
    assert not (small_disk / "bundles").exists()
    assert store(small_disk) == []
    filler.unlink()
    put(files, small_disk, device)
    assert digest(small_disk / "bundles" / "x" / "a") == digest(files["a"])


def test_a_place_that_cannot_be_written_is_said(device, tmp_path):
    files = make(tmp_path / "here", {"a": 10})
    (tmp_path / "there").write_text("a file, no folder")
    with pytest.raises(OutsideFailure, match="there/store cannot be written: Not a directory"):
        put(files, tmp_path / "there", device)


def test_a_python_that_is_not_there_is_said(device, server, tmp_path):
    with pytest.raises(OutsideFailure, match="receive failed with status 127"):
        send(device, "/no/python", str(server.root), {}, "x", patience=1, detail=quiet)


def test_a_file_here_that_cannot_be_read_is_bad_input(root, tmp_path):
    with pytest.raises(BadInput, match="missing: cannot be read"):
        put({"a": tmp_path / "missing"}, root)


def test_a_file_that_changes_while_it_is_sent_is_never_put_in_place(root, tmp_path, monkeypatch):
    files = make(tmp_path / "here", {"a": 100_000})
    listed = hashlib.file_digest

    def changed(stream, kind):
        found = listed(stream, kind)
        files["a"].write_bytes(change)
        return found

    monkeypatch.setattr("hashlib.file_digest", changed)
    change = b"shorter"
    with pytest.raises(BadInput, match="changed while it was sent"):
        put(files, root)
    files = make(tmp_path / "here", {"a": 100_000})
    change = bytes(100_000)
    with pytest.raises(VerificationFailed, match="a: damaged on the way 3 times"):
        put(files, root)
    assert not (root / "bundles").exists()


NAMES = ["../x", "/etc/x", "a/../../x", "a//b", "", ".", "..", "a/", "a\\b", "a\nb", "a\0b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_of_the_folder_is_refused(root, tmp_path, name):
    files = make(tmp_path / "here", {"a": 10})
    for files_there, folder in (({name: files["a"]}, "x"), ({"a": files["a"]}, name)):
        with pytest.raises(BadInput, match="is no name of a file"):
            put(files_there, root, folder=folder)
    assert not root.exists()


def test_a_link_that_leads_out_of_the_folder_is_refused(root, tmp_path):
    files = make(tmp_path / "here", {"a": 10})
    (root / "bundles" / "x").mkdir(parents=True)
    (root / "bundles" / "x" / "golden").symlink_to(tmp_path / "here")
    with pytest.raises(BadInput, match="by a link"):
        put({"golden/b": files["a"]}, root)
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["a"]


def test_a_root_that_is_a_link_itself_is_used(tmp_path):
    files = make(tmp_path / "here", {"a": 10})
    (tmp_path / "disk").mkdir()
    (tmp_path / "there").symlink_to(tmp_path / "disk")
    put(files, tmp_path / "there")
    assert digest(tmp_path / "disk" / "bundles" / "x" / "a") == digest(files["a"])


@given(
    st.lists(st.sampled_from(["..", ".", "", "a", "b.c", "link", "a b", "~", "-x", "\\", "é"]), min_size=1)
)
def test_whatever_the_name_it_stays_below_the_root(tmp_path_factory, steps):
    root = tmp_path_factory.getbasetemp() / "confined"
    root.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (root / "link").symlink_to("/etc")
    try:
        path = receive.confined(str(root), "folder/link" if "~" in steps else "folder", "/".join(steps))
    except receive.Refused:
        return
    assert Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def test_a_sweep_removes_what_nothing_links_to(root, tmp_path):
    files = make(tmp_path / "here", {"a": 10, "b": 20})
    put(files, root)
    (root / "bundles" / "x" / "b").unlink()
    old = root / "store" / f"{'0' * 64}.part"
    old.write_bytes(b"left")
    long_ago = time.time() - 40 * 86400
    os.utime(old, (long_ago, long_ago))
    assert call(Here(), sys.executable, "receive", ["sweep", str(root), "30"]) == {"removed": 0}
    assert len(store(root)) == 2
    assert call(Here(), sys.executable, "receive", ["sweep", str(root), "0"]) == {"removed": 1}
    assert store(root) == [digest(files["a"])]
    assert call(Here(), sys.executable, "receive", ["sweep", str(root / "none"), "0"]) == {"removed": 0}


def test_a_file_system_without_links_gets_copies(root, tmp_path, monkeypatch):
    files = make(tmp_path / "here", {"a": 10})

    def refuse(source, target):
        raise PermissionError(1, "no links here", source)

    put(files, root)
    monkeypatch.setattr("os.link", refuse)
    source, target = root / "store" / digest(files["a"]), root / "copy"
    receive.link(str(source), str(target), False)
    assert digest(target) == digest(files["a"])
    assert not target.samefile(source)


def test_progress_is_told_with_rate_and_time_left(device, server, tmp_path):
    told = []
    with every_piece_is_told():
        put(make(tmp_path / "here", {"a": 60_000_000}), server.root, device, detail=told.append)
    lines = [line for line in told if line.startswith("sending")]
    assert lines
    assert all(line.split(" of ")[1].startswith("60.0 MB, ") and line.endswith(" s left") for line in lines)


def test_the_device_may_have_python_3_8():
    ast.parse((ROOT / "remote" / "receive.py").read_text(), feature_version=(3, 8))


def test_nothing_runs_on_the_device_afterwards(device, server, tmp_path):
    put(make(tmp_path / "here", {"a": 10}), server.root, device)
    wait_for(lambda: {name_of(pid) for pid in descendants(server.process.pid)} == {"sshd"})
