"""`edgekit bench` and `deploy` to a device behind a slow, lossy, long link: cut, or its server killed."""

import json
import subprocess
import sys
import time

import pytest
from bundles import FLOAT, image_calls, model_of, packed, value, weights
from command import edgekit, environment, refusal
from netns import device_at_the_end_of_a_cable, inside
from onnx import helper
from user import assert_nothing_runs_on, running_on, user_at, wait_for

CUT_S = 20
QUICK = ["--quick", "--offline"]
HEADERS = 1.10  # what TCP/IP and SSH add, with the packets that the link loses and TCP sends again
SETTING_UP = 600_000  # bytes: greetings and keys of a few connections, edgekit's programs, what TCP answers
NO_NETWORK = (
    "the package index cannot be reached; "
    "add `--offline` to send the packages along, or give the device a network"
)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """The cable, the server, and the address of the device; this thread is on the user's machine.

    A bundle, `tiny`, was there before, over a good link: its environment is there.
    """
    folder = tmp_path_factory.mktemp("far")
    packed(folder / "tiny")
    with device_at_the_end_of_a_cable(folder) as (cable, server, address), user_at(folder / "me") as home:
        with (home / ".ssh" / "known_hosts").open("a") as known:
            known.write(server.known_hosts)
        with inside(cable.device):
            edgekit("bench", folder / "tiny", "--on", server.address, *QUICK, cwd=folder)
        yield cable, server, address
        assert_nothing_runs_on(server)


def large_network(megabytes):
    """A network with so much of weights, which cannot be compressed."""
    rows = int(megabytes * 1e6 / 4 / 768)
    nodes = [
        helper.make_node("Flatten", ["image"], ["a"]),
        helper.make_node("MatMul", ["a", "w1"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["logits"]),
    ]
    return model_of(
        nodes,
        [value("image", FLOAT, [1, 3, 16, 16])],
        [value("logits", FLOAT, [1, 10])],
        weights(w1=(768, rows), w2=(rows, 10)),
    )


class Background:
    """A bench that runs beside the test."""

    def __init__(self, *arguments, cwd):
        command = [sys.executable, "-m", "edgekit", "bench", *map(str, arguments)]
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self):
        """What it printed, after it succeeded."""
        out, errors = self._process.communicate(timeout=200)
        assert self._process.returncode == 0, out + errors
        return out

    def runs(self):
        """Whether it has not ended."""
        return self._process.poll() is None

    def close(self):
        """Kill it."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(tmp_path):
    """Starts a bench of a bundle that lies in the test's own folder."""
    started = []

    def begin(*arguments):
        started.append(Background(*arguments, cwd=tmp_path))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def is_timing(server):
    """Whether the runner times on the device, not one of edgekit's own programs."""
    own, commands = f"{server.root}/bundles/", running_on(server).values()
    return any(command.startswith(own) and "/run.py --bundle" in command for command in commands)


def test_a_bench_over_a_slow_and_lossy_link_sends_no_more_than_is_missing(far, tmp_path):
    cable, _, address = far
    packed(tmp_path / "tiny")
    before, lost = cable.sent(), cable.lost()
    done = edgekit("bench", "tiny", "--on", address, *QUICK, cwd=tmp_path)
    assert "MEASURED THERE" in done.stdout
    assert cable.sent() - before < SETTING_UP
    assert cable.lost() > lost


def test_a_link_cut_in_mid_upload_is_waited_for_and_nothing_that_arrived_is_sent_twice(far, start, tmp_path):
    cable, server, address = far
    bundle = packed(tmp_path / "large", large_network(5), image_calls(), name="large")
    size = (bundle / "model.onnx").stat().st_size

    def arrived():
        return sum(part.stat().st_size for part in server.root.glob("store/*.part*"))

    bench = start("large", "--on", address, *QUICK)
    wait_for(lambda: arrived() > size / 3, seconds=60)
    there, before = [], []

    def look():
        there.append(arrived())
        before.append(cable.sent())

    cable.cut_for(CUT_S, then=look).join()
    assert size / 3 <= there[0] < size
    assert "MEASURED THERE" in bench.end()
    assert cable.sent() - before[0] < (size - there[0]) * HEADERS + SETTING_UP
    # The packages of its own environment, which had come along with the other bundle.
    assert sum(path.stat().st_size for path in server.root.glob("bundles/large-*/wheels/*")) > 20e6


@pytest.mark.parametrize("what", ["the link", "the server"])
def test_what_breaks_in_mid_bench_is_waited_for_and_the_bench_runs_once(far, start, tmp_path, what):
    cable, server, address = far
    packed(tmp_path / "tiny")
    bench = start("tiny", "--on", address, *QUICK)
    wait_for(lambda: is_timing(server), seconds=60)
    (run,) = server.root.glob("runs/*")
    if what == "the link":
        cable.cut_for(CUT_S).join()
    else:
        server.stop()
        assert is_timing(server)
        time.sleep(3)
        with inside(cable.device):
            server.start()
    seen = set()
    while bench.runs():
        seen |= set(server.root.glob("runs/*"))
        time.sleep(0.05)
    assert "MEASURED THERE" in bench.end()
    assert seen <= {run}
    assert not list(server.root.glob("runs/*"))
    record = json.loads(next(tmp_path.glob("tiny.*.bench.json")).read_text())
    assert record["latency"]["n"] > 100


def test_a_device_without_internet_is_told_of_the_option_that_sends_the_packages_along(far, tmp_path):
    _, server, address = far
    packed(tmp_path / "other", name="other")
    line = refusal("bench", "other", "--on", address, "--quick", cwd=tmp_path, expect=4)
    assert line == f"{address}: {NO_NETWORK}"
    assert not list(server.root.glob("bundles/other-*/venv"))
    assert_nothing_runs_on(server)


def test_a_bundle_is_deployed_over_a_slow_and_lossy_link(far, tmp_path):
    _, _, address = far
    packed(tmp_path / "tiny")
    done = edgekit("deploy", "tiny", "--on", address, "--offline", "--json", cwd=tmp_path)
    (device,) = json.loads(done.stdout)["devices"]
    assert device["name"] == "tiny"
    listed = edgekit("deploy", "--list", "--on", address, "--json", cwd=tmp_path)
    (service,) = json.loads(listed.stdout)["devices"][0]["services"]
    assert [(one["version"], one["active"]) for one in service["versions"]] == [(device["version"], True)]
