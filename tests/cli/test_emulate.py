import contextlib
import json
import os
import pty
import subprocess
import sys
import termios
import time

import pytest
from command import edgekit, environment, refusal
from emulated import DOCKER, image, up
from emulated_sshd import PACKAGES

from edgekit.emulation.engine import connect

TERMINAL_S = 60
# An image for arm64 without a single file.
EMPTY = "import sys, mkimage; sys.stdout.buffer.write(mkimage.image('arm64', sys.argv[1], mkimage._tar([])))"


@pytest.fixture(scope="module")
def engine():
    up()
    with contextlib.closing(connect()) as client:
        yield client


@pytest.fixture
def mine(tmp_path, engine):
    """A folder with a target of one's own, whose image other tests do not use."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "mine.yaml").write_text("extends: rpi4\n")
    yield tmp_path
    with contextlib.suppress(Exception):
        engine.images.remove("edgekit/base:mine")


@pytest.fixture
def other(engine):
    """The name of an image with more in it than the boards', and a program that it starts by itself."""
    name = "edgekit-test/other:1"
    container = engine.containers.create(image(PACKAGES), platform="linux/arm64")
    container.commit("edgekit-test/other", "1", conf={"Entrypoint": ["/usr/bin/false"]})
    container.remove()
    yield name
    engine.images.remove(name)


def piped(text, *arguments, cwd):
    """What a command prints that reads `text`."""
    return subprocess.run(
        [sys.executable, "-m", "edgekit", *arguments],
        input=text, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


class Terminal:
    """A command on a terminal of its own, 30 lines of 90 columns."""

    def __init__(self, *arguments, cwd):
        self.own, its = pty.openpty()
        termios.tcsetwinsize(its, (30, 90))
        variables = {name: text for name, text in environment(TERM="xterm").items() if name != "COLUMNS"}
        command = ["setsid", "--ctty", sys.executable, "-m", "edgekit", *arguments]
        self.process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, cwd=cwd, env=variables)
        os.close(its)
        self.seen = ""

    def type(self, text):
        os.write(self.own, text.encode())

    def wait_for(self, text):
        """Read until it shows, and forget what came before."""
        os.set_blocking(self.own, False)
        end = time.monotonic() + TERMINAL_S
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            try:
                self.seen += os.read(self.own, 65536).decode("utf-8", "replace")
            except BlockingIOError:
                time.sleep(0.02)
        self.seen = self.seen.partition(text)[2]


def test_the_list_has_every_board_that_can_be_imitated(tmp_path, engine):
    made = image()
    lines = edgekit("emulate", "list", cwd=tmp_path).stdout.splitlines()
    assert lines[0].split() == ["TARGET", "CPU", "CORES", "MEMORY", "IMAGE"]
    names = ["jetson-nano", "jetson-orin-nano", "rpi-zero2w", "rpi3", "rpi4", "rpi5"]
    assert [line.split()[0] for line in lines[1:]] == names
    assert lines[5].split()[:5] == ["rpi4", "cortex-a72", "4", "4295", "MB"]
    rows = json.loads(edgekit("emulate", "list", "--json", cwd=tmp_path).stdout)
    assert rows[4].pop("image_mb") == pytest.approx(50, abs=5)
    assert rows[4] == {
        "target": "rpi4", "cpu": "cortex-a72", "cores": 4, "memory_mb": 4295, "limit_mb": 4445, "image": made,
    }  # fmt: skip


def test_build_makes_the_image_and_says_what_it_takes(tmp_path, engine):
    done = edgekit("emulate", "build", "rpi5", cwd=tmp_path)
    assert done.stdout == f"{image()}: 50 MB; `edgekit emulate shell rpi5` looks into it\n"


def test_an_image_of_the_user_s_is_that_of_one_target_until_it_is_undone(mine, other):
    look = "test -e /usr/sbin/sshd"
    assert edgekit("emulate", "build", "mine", "--base", other, cwd=mine).stdout.startswith(
        "edgekit/base:mine: "
    )
    assert "edgekit/base:mine" in edgekit("emulate", "list", cwd=mine).stdout
    assert piped(look, "emulate", "shell", "mine", cwd=mine).returncode == 0
    assert piped(look, "emulate", "shell", "rpi4", cwd=mine).returncode == 1
    edgekit("emulate", "build", "mine", cwd=mine)
    assert piped(look, "emulate", "shell", "mine", cwd=mine).returncode == 1


def test_an_image_without_python_is_refused(mine, engine):
    name = "edgekit-test/empty:1"
    make = [sys.executable, "-c", EMPTY, name]
    engine.images.load(subprocess.run(make, cwd=DOCKER, check=True, capture_output=True).stdout)
    try:
        line = refusal("emulate", "build", "mine", "--base", name, cwd=mine)
    finally:
        engine.images.remove(name)
    assert line.startswith(f"--base {name}: its python3 ")


@pytest.mark.parametrize(
    ("name", "line", "status"),
    [
        ("nowhere.invalid/python:3", "cannot be pulled for linux/arm64: ", 4),
        ("///:", "is no name of an image: ", 2),
    ],
)
def test_an_image_that_is_not_there_is_refused(mine, name, line, status):
    found = refusal("emulate", "build", "mine", "--base", name, cwd=mine, expect=status)
    assert found.startswith(f"--base {name}: {line}")
    assert "edgekit/base" not in edgekit("emulate", "list", cwd=mine).stdout


def test_a_shell_reads_commands_from_a_pipe_and_passes_its_status_on(tmp_path, engine):
    done = piped("uname -m; pwd; echo err >&2; exit 5", "emulate", "shell", "rpi4", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, "aarch64\n/home/edge\n")
    assert done.stderr.splitlines()[-1] == "err"


def test_a_shell_on_a_terminal_is_one(tmp_path, engine):
    terminal = Terminal("emulate", "shell", "rpi4", cwd=tmp_path)
    terminal.wait_for("$ ")
    terminal.type("stty size; uname -m\r")
    terminal.wait_for("30 90\r\naarch64\r\n")
    terminal.type("sleep 600\r")
    terminal.wait_for("sleep 600")
    termios.tcsetwinsize(terminal.own, (40, 100))
    terminal.type("\x03")
    terminal.wait_for("$ ")
    terminal.type("stty size; exit 9\r")
    terminal.wait_for("40 100")
    assert terminal.process.wait(TERMINAL_S) == 9
    os.close(terminal.own)


def test_a_board_that_cannot_be_imitated_is_said_with_those_that_can(tmp_path):
    line = refusal("emulate", "build", "x86-cpu", cwd=tmp_path)
    assert line.startswith("container:x86-cpu: the profile x86-cpu has no `emulation`")
    assert line.endswith("these can: jetson-nano, jetson-orin-nano, rpi-zero2w, rpi3, rpi4, rpi5")


@pytest.mark.parametrize("command", [["list"], ["build", "rpi4"], ["shell", "rpi4"]])
def test_without_an_engine_there_is_one_line_with_the_command(tmp_path, command):
    host = f"unix://{tmp_path}/none.sock"
    line = refusal("emulate", *command, cwd=tmp_path, expect=4, DOCKER_HOST=host)
    assert line.startswith("the Docker engine: it does not run; sudo ")


@pytest.mark.parametrize("command", [[], ["list"], ["build"], ["shell"]])
def test_help_has_an_example(tmp_path, command):
    assert "Example:\n  " in edgekit("emulate", *command, "--help", cwd=tmp_path).stdout
