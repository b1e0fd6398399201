"""What can be wrong with a device: one clear line, exit status 4, and nothing half-done is left there."""

import contextlib
import ctypes
import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from bundles import contents_of, packed
from command import edgekit, environment, refusal
from sshd import free_port, running_sshd
from user import assert_nothing_half_done_on, assert_nothing_runs_on, running_on, user_at, wait_for

from edgekit.bundle.pack import write_bundle
from edgekit.target import load_target

QUICK = ["--quick", "--offline"]
CLONE_NEWNS = 0x20000
# What a Python of Ubuntu 18.04 answers when it is asked what it is.
OLD = """#!/bin/sh
echo 'edgekit-python {"path": "/usr/bin/python3", "real": "/usr/bin/python3.6", "version": [3, 6, 9],\
 "bits": 64, "implementation": "cpython", "venv": true}'
"""


@pytest.fixture
def server(tmp_path):
    """A device on which nothing is yet."""
    with running_sshd(tmp_path / "sshd") as server, user_at(server.make_client(tmp_path / "me")):
        yield server


@pytest.fixture
def folder(tmp_path):
    """A folder with a bundle, `tiny`."""
    packed(tmp_path / "tiny")
    return tmp_path


def bundle_with(folder, **pins):
    """A bundle whose requirements are others."""
    target = load_target("rpi4")
    target = target.model_copy(update={"requirements": {**target.requirements, "onnxruntime": pins}})
    folder.mkdir()
    write_bundle(folder, contents_of(target=target))


def refused(address, folder, *options, expect=4):
    """The one line."""
    line = refusal("bench", "tiny", "--on", address, *(options or QUICK), cwd=folder, expect=expect)
    assert not list(folder.glob("tiny.*"))
    return line


def test_an_unknown_host_key_is_refused_with_the_option_that_accepts_it(server, folder):
    known = folder / "me" / ".ssh" / "known_hosts"
    known.write_text("")
    line = refused(server.address, folder)
    option = re.search(r"add (--accept-host-key) (SHA256:\S+)$", line)
    assert option[2] == server.fingerprint
    assert not server.root.exists()
    edgekit("probe", server.address, *option.groups(), cwd=folder)
    assert known.read_text().split()[1:] == server.known_hosts.split()[1:]


def test_a_host_key_that_changed_is_refused_whatever_is_accepted(server, folder):
    server.swap_host_key()
    line = refused(server.address, folder, *QUICK, "--accept-host-key", server.fingerprint)
    assert "THE HOST KEY HAS CHANGED" in line
    assert "ssh-keygen -R" in line
    assert not server.root.exists()


@contextlib.contextmanager
def asking_server(folder):
    """A server that lets a user of this system in by password; the server and his name."""
    name, password = f"edgekit{os.getpid()}", "correct horse"
    subprocess.run(["useradd", "--home-dir", "/", "--shell", "/bin/sh", name], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{password}".encode(), check=True)
        with (
            running_sshd(folder / "sshd", first=["PasswordAuthentication yes"]) as server,
            user_at(server.make_client(folder / "me")),
        ):
            server.authorized_keys.write_text("")
            yield server, name
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


class Terminal:
    """A command at a terminal of its own; what it shows, and the keys that are typed."""

    def __init__(self, *arguments, cwd):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgekit", *map(str, arguments)],
            cwd=cwd,
            env=environment(TERM="xterm"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no other thread runs
        )
        self._slave = slave
        self.shown = ""

    def see(self, words, times=1, seconds=60):
        """Wait until it shows the words so often."""
        end = time.monotonic() + seconds
        while self.shown.count(words) < times:
            assert time.monotonic() < end, self.shown
            self._take()

    def type(self, keys):
        """Type keys."""
        os.write(self._master, keys.encode())

    def end(self, seconds=60):
        """Its exit status; `shown` is whole then."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.shown
            self._take()
        while self._take():
            pass
        return self.process.returncode

    @property
    def shows_keys(self):
        """Whether what is typed is seen."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def close(self):
        """Kill it."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _take(self):
        if not select.select([self._master], [], [], 0.1)[0]:
            return False
        self.shown += os.read(self._master, 1 << 16).decode(errors="replace")
        return True


def test_a_wrong_password_is_asked_for_three_times_and_refused(folder):
    with asking_server(folder) as (server, name):
        arguments = ["bench", "tiny", "--on", server.address.replace("root", name), *QUICK]
        with contextlib.closing(Terminal(*arguments, cwd=folder)) as terminal:
            for number in (1, 2, 3):
                terminal.see("password of", number)
                wait_for(lambda: not terminal.shows_keys)
                terminal.type("wrong\n")
            assert terminal.end() == 4
        assert terminal.shown.count("error: ") == 1
        assert f"the password of {name} is wrong" in " ".join(terminal.shown.split())
        assert "Traceback" not in terminal.shown
        line = refused(server.address.replace("root", name), folder)
        assert "nobody can be asked for a password" in line
        assert_nothing_half_done_on(server)


def test_ctrl_c_at_the_question_for_a_password_ends_it_at_once(folder):
    with asking_server(folder) as (server, name):
        arguments = ["bench", "tiny", "--on", server.address.replace("root", name), *QUICK]
        with contextlib.closing(Terminal(*arguments, cwd=folder)) as terminal:
            terminal.see("password of")
            wait_for(lambda: not terminal.shows_keys)
            terminal.type("\x03")
            assert terminal.end(seconds=15) == 130
            assert terminal.shows_keys
        assert "interrupted; nothing is kept" in terminal.shown


@contextlib.contextmanager
def small_disk(server, megabytes):
    """Edgekit's folder on the device is on a disk of its own; gives what makes it larger."""
    server.root.mkdir(parents=True)
    options = "size={}m"
    mount = ["mount", "-t", "tmpfs", "-o", options.format(megabytes), "tmpfs", server.root]
    subprocess.run(mount, check=True)

    def resize(new):
        remount = f"remount,{options.format(new)}"
        subprocess.run(["mount", "-o", remount, server.root], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", server.root], check=True)


def test_a_full_disk_is_said_and_what_was_begun_goes_again(server, folder):
    with small_disk(server, 20) as resize:
        assert "no room: " in (line := refused(server.address, folder))  # for the wheels
        assert "free some space there" in line
        assert_nothing_half_done_on(server)
        resize(110)
        assert "no room left on the disk" in (line := refused(server.address, folder))  # when pip unpacks
        assert "free some space on the device" in line
        assert_nothing_half_done_on(server)
        resize(500)
        edgekit("bench", "tiny", "--on", server.address, *QUICK, cwd=folder)
        assert_nothing_runs_on(server)


def pythons():
    """The files of this machine's Pythons where a device's are looked for."""
    found = [path for folder in ("/usr/bin", "/usr/local/bin") for path in Path(folder).glob("python*")]
    return {path.resolve() for path in found if re.fullmatch(r"python[\d.]*", path.name)}


@contextlib.contextmanager
def server_whose_pythons_are(replacement, folder):
    """A device with another file in the place of each Python: its server has its own view of the disk."""
    made = []

    def start():
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):  # of this thread and what it starts
            raise OSError(ctypes.get_errno(), "no view of its own")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        for path in pythons():
            subprocess.run(["mount", "--bind", replacement, path], check=True)
        made.append(stack.enter_context(running_sshd(folder / "sshd")))

    with contextlib.ExitStack() as stack:
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        yield made[0]


@pytest.mark.parametrize(
    ("script", "mode", "has"),
    [(OLD, 0o755, "it has Python 3.6.9 (/usr/bin/python3)"), ("", 0o644, "it has none")],
)
def test_a_python_that_is_too_old_or_not_there_is_said_with_what_installs_one(folder, script, mode, has):
    replacement = folder / "python"
    replacement.write_text(script)
    replacement.chmod(mode)
    with server_whose_pythons_are(replacement, folder) as server, user_at(server.make_client(folder / "me")):
        line = refused(server.address, folder)
        assert not server.root.exists()
    assert line.startswith(f"{server.address}: no CPython 3.8 or newer is there: {has}; install one there: ")


def test_a_device_that_cannot_be_reached_is_said(folder):
    (folder / "me" / ".ssh").mkdir(parents=True)
    (folder / "me" / ".ssh" / "config").write_text("ConnectTimeout 3\n")
    with user_at(folder / "me"):
        port = free_port()
        closed = refused(f"ssh://root@127.0.0.1:{port}", folder)
        assert f"127.0.0.1 port {port} refuses connections; start the SSH server there" in closed
        away = refused("ssh://root@192.0.2.77", folder)  # an address for examples, which nobody has
        assert re.search(r"^ssh://root@192.0.2.77: (no way to|no answer from) .*; look ", away)


def test_a_package_without_a_wheel_for_the_device_is_refused_before_anything_is_sent(server, tmp_path):
    bundle_with(tmp_path / "tiny", onnxruntime="1.31.1", numpy="1.19.5")
    line = refused(server.address, tmp_path)
    assert line.startswith("numpy 1.19.5: no wheel fits CPython 3.11 on x86_64 with glibc ")
    assert "pin a version that fits in the target's `requirements` and build again" in line
    assert not server.root.exists()


def test_a_package_that_dies_on_the_devices_cpu_is_refused_before_it_runs(tmp_path):
    bundle_with(tmp_path / "tiny", onnxruntime="1.21.0", numpy="2.2.6")
    line = refused("container:rpi4", tmp_path)
    assert line.startswith("onnxruntime 1.21.0: ")
    assert "dies of SIGILL at import on CPUs without `asimdhp`, as this Cortex-A72" in line
    assert "pin onnxruntime 1.21.1 or newer" in line


def test_ctrl_c_in_the_middle_of_a_bench_leaves_nothing_running_there(server, folder):
    edgekit("bench", "tiny", "--on", server.address, *QUICK, cwd=folder)
    arguments = ["bench", "tiny", "--on", server.address, "--offline", "--sustained", "10m"]
    with contextlib.closing(Terminal(*arguments, cwd=folder)) as terminal:
        wait_for(lambda: any("--sustained" in command for command in running_on(server).values()))
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "interrupted; nothing is kept" in terminal.shown
    assert running_on(server) == {}
    (left,) = server.root.glob("runs/*")
    assert {path.name for path in left.iterdir()} == {"lock", "stopped"}  # so that it cannot begin late


def test_ctrl_c_while_the_environment_is_made_leaves_nothing_that_counts_as_one(server, folder):
    arguments = ["bench", "tiny", "--on", server.address, *QUICK]
    with contextlib.closing(Terminal(*arguments, cwd=folder)) as terminal:
        wait_for(lambda: any(" install " in command for command in running_on(server).values()))
        terminal.type("\x03")
        assert terminal.end() == 130
    assert running_on(server) == {}
    assert not list(server.root.glob("bundles/*/venv/edgekit.json"))
    edgekit("bench", "tiny", "--on", server.address, *QUICK, cwd=folder)
