"""A device behind a slow, lossy, long link, which is cut for longer than most programs wait."""

import os
import socket
import threading
import time

import pytest
from netns import DEVICE, device_at_the_end_of_a_cable

from edgekit.devices.address import parse_address
from edgekit.devices.detached import run_detached
from edgekit.devices.ssh import open_ssh
from edgekit.devices.transfer import send

PYTHON = "/usr/bin/python3"
PATIENCE_S = 120
CUT_S = 20
SIZE = 6_000_000
HEADERS = 1.10  # what TCP/IP and SSH add, with the packets that the link loses and TCP sends again
SETTING_UP = 300_000  # bytes: greeting, keys and programs, of a few connections


@pytest.fixture
def far(tmp_path, monkeypatch):
    """The cable, the server, and the address of the device; this thread is on the user's machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with device_at_the_end_of_a_cable(tmp_path) as (cable, server, address):
        yield cable, server, address


@pytest.fixture
def device(far):
    device = open_ssh(parse_address(far[2]))
    yield device
    device.close()


@pytest.fixture
def model(tmp_path):
    """A file that cannot be compressed."""
    path = tmp_path / "model.onnx"
    path.write_bytes(os.urandom(SIZE))
    return path


def arrived(server):
    """Bytes of the file that is on its way which the device has."""
    return sum(part.stat().st_size for part in (server.root / "store").glob("*.part*"))


def put(device, server, model):
    place = (device, PYTHON, str(server.root), {"model.onnx": model}, "bundles/b/bundle")
    return send(*place, patience=PATIENCE_S, detail=print)


def test_the_link_takes_50_ms_for_a_round_trip(far):
    took = []
    for _ in range(3):
        begun = time.monotonic()
        socket.create_connection((DEVICE, far[1].port)).close()
        took.append(time.monotonic() - begun)
    assert 0.05 <= min(took) < 0.5


def test_files_arrive_over_a_slow_and_lossy_link(far, device, model):
    cable, server, _ = far
    before = cable.sent()
    sent = put(device, server, model)
    assert (server.root / "bundles/b/bundle/model.onnx").read_bytes() == model.read_bytes()
    assert sent.bytes_sent == SIZE
    assert sent.seconds > SIZE * 8 / 10e6 * 0.9  # the link is what was slow
    assert cable.lost() > 20  # of some 4000 packets
    assert cable.sent() - before < SIZE * HEADERS + SETTING_UP


@pytest.mark.parametrize(("seconds", "server_too"), [(CUT_S, False), (3, True)])
def test_a_link_cut_in_mid_upload_is_waited_for_and_nothing_that_arrived_is_sent_twice(
    far, device, model, seconds, server_too
):
    cable, server, _ = far
    there, before = [], []

    def cut():
        while arrived(server) < SIZE / 3:
            time.sleep(0.02)
        timer = cable.cut_for(seconds, then=look)
        if server_too:
            server.cut_connections()
        timer.join()

    def look():
        there.append(arrived(server))
        before.append(cable.sent())

    cutter = threading.Thread(target=cut)
    cutter.start()
    sent = put(device, server, model)
    cutter.join()
    assert (server.root / "bundles/b/bundle/model.onnx").read_bytes() == model.read_bytes()
    assert sent.seconds > seconds
    assert SIZE / 3 <= there[0] < SIZE
    assert cable.sent() - before[0] < (SIZE - there[0]) * HEADERS + SETTING_UP


def test_a_link_cut_in_mid_run_is_waited_for_and_the_result_is_right(far, device):
    cable, server, _ = far
    program = f"""
import sys, time
for number in range({CUT_S // 2 + 5}):
    print("line", number, file=sys.stderr, flush=True)
    time.sleep(1)
print("x" * 500000)
"""
    lines = []

    def cut(line):
        lines.append(line)
        if line == "line 3":
            cable.cut_for(CUT_S)

    command = [PYTHON, "-c", program]
    place = (device, PYTHON, str(server.root), command)
    finished = run_detached(*place, seconds=120, patience=PATIENCE_S, detail=cut)
    assert (finished.status, finished.printed, finished.rebooted) == (0, "x" * 500000 + "\n", False)
    assert [line for line in lines if line.startswith("line")] == [f"line {n}" for n in range(CUT_S // 2 + 5)]
