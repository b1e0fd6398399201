"""Finding the engine and the emulator; what is missing is said with the command that mends it."""

import os
import shutil
import socketserver
import threading
from pathlib import Path

import pytest
from emulated import up

from edgekit.emulation import engine
from edgekit.errors import OutsideFailure

ENTRY = f"enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: {{}}\noffset 0\nmagic {engine.AARCH64}\n"
NOBODY = 65534


class Relay(socketserver.BaseRequestHandler):
    """The engine of this machine as one that answers over TCP."""

    def handle(self):
        import socket

        with socket.socket(socket.AF_UNIX) as other:
            other.connect("/var/run/docker.sock")
            back = threading.Thread(target=self.copy, args=(other, self.request))
            back.start()
            self.copy(self.request, other)
            other.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def copy(source, target):
        while data := source.recv(65536):
            target.sendall(data)


@pytest.fixture(scope="module", autouse=True)
def running():
    up()


@pytest.fixture
def registrations(tmp_path, monkeypatch):
    """A folder that stands for the kernel's registrations; empty."""
    monkeypatch.setattr(engine, "BINFMT", tmp_path)
    return tmp_path


def test_the_engine_of_this_machine_runs_arm64():
    client = engine.connect()
    found = engine.require_emulation(client)
    client.close()
    assert "F" in found.flags
    assert engine.qemu_version(found.interpreter).split(".")[0].isdigit()


@pytest.mark.parametrize(
    ("entries", "installed"), [({}, True), ({}, False), ({"qemu-arm": "enabled\n"}, True)]
)
def test_a_missing_emulator_is_said_with_the_command(registrations, monkeypatch, entries, installed):
    for name, text in entries.items():
        (registrations / name).write_text(text)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if installed else None)
    with pytest.raises(OutsideFailure) as error:
        engine.registered()
    assert str(error.value) == (
        "binfmt_misc: binaries for arm64 cannot run here; "
        + ("sudo update-binfmts --enable qemu-aarch64" if installed else engine.INSTALL_QEMU)
    )


def test_a_registration_that_is_switched_off_does_not_count(registrations):
    (registrations / "qemu-aarch64").write_text(ENTRY.format("F").replace("enabled", "disabled"))
    assert engine.binfmt() is None


def test_a_registration_by_any_name_counts_and_one_without_f_is_said(registrations):
    (registrations / "status").write_text("enabled")
    (registrations / "mine").write_text(ENTRY.format("POCF"))
    assert engine.registered() == engine.Binfmt(interpreter=Path("/usr/bin/qemu-aarch64"), flags="POCF")
    (registrations / "mine").write_text(ENTRY.format("OC"))
    with pytest.raises(OutsideFailure, match=r"without the flag F.*--reinstall qemu-user-static"):
        engine.registered()


def test_an_engine_that_does_not_run_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(OutsideFailure, match=r"the Docker engine: it does not run; sudo .* start"):
        engine.connect()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(OutsideFailure, match=r"there is none; sudo apt-get install docker\.io"):
        engine.connect()


def test_an_engine_that_one_may_not_use_is_said():
    engine.connect().close()  # what it imports is read before this process is somebody else
    os.seteuid(NOBODY)
    try:
        with pytest.raises(OutsideFailure, match=r"you may not use it; sudo usermod -aG docker \$USER"):
            engine.connect()
    finally:
        os.seteuid(0)


def test_an_engine_elsewhere_is_refused(monkeypatch):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        relay.daemon_threads = True
        threading.Thread(target=relay.serve_forever).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{relay.server_address[1]}")
        try:
            with pytest.raises(OutsideFailure, match=r"on another machine.*unset DOCKER_HOST"):
                engine.connect()
        finally:
            relay.shutdown()


def test_an_address_that_is_none_is_one_line(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "nonsense")
    with pytest.raises(OutsideFailure, match=r"the Docker engine: cannot be used: .*`docker info` says more"):
        engine.connect()
