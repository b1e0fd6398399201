import json

import pytest
from command import edgekit, refusal
from emulated import up

from edgekit.emulation.checks import _qemu


@pytest.fixture(scope="module", autouse=True)
def running():
    up()


def states(done):
    """The state of each thing that was looked at."""
    return {item["name"]: item["state"] for item in json.loads(done.stdout)["checks"]}


def test_a_machine_that_has_everything_is_well(tmp_path):
    done = edgekit("doctor", cwd=tmp_path)
    assert all(line.startswith(("✓ ", "  ")) for line in done.stdout.splitlines()), done.stdout
    for name in (
        "Python",
        "pip",
        "onnxruntime",
        "cache",
        "Docker engine",
        "images",
        "emulator",
        "QEMU",
        "gpgv",
    ):
        assert f"✓ {name} " in done.stdout
    assert set(states(edgekit("doctor", "--json", cwd=tmp_path)).values()) == {"ok"}


def test_a_missing_engine_is_said_with_the_command_and_the_rest_is_looked_at(tmp_path):
    host = f"unix://{tmp_path}/none.sock"
    done = edgekit("doctor", cwd=tmp_path, expect=4, DOCKER_HOST=host)
    place = done.stdout.index("✗ Docker engine")
    assert done.stdout[place:].splitlines()[1].strip().startswith("sudo ")
    assert "✓ emulator" in done.stdout
    assert "✓ gpgv" in done.stdout
    line = refusal("doctor", cwd=tmp_path, expect=4, DOCKER_HOST=host)
    assert line.startswith("this machine: 1 thing missing: Docker engine; ")


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    done = edgekit("doctor", "--json", cwd=tmp_path, expect=4, EDGEKIT_CACHE="/proc/none")
    assert {name for name, state in states(done).items() if state != "ok"} == {"cache"}


def test_programs_that_single_commands_call_are_missed_by_what_they_are_for(tmp_path):
    done = edgekit("doctor", cwd=tmp_path, expect=4, PATH=str(tmp_path))
    assert "✗ gpgv           not there; checks the signature of Debian's packages" in done.stdout
    assert "! gcc            not there; compiles what counts instructions" in done.stdout
    assert "sudo apt-get install openssh-client" in done.stdout


@pytest.mark.parametrize(
    ("version", "state", "says"),
    [
        ("7.2.22", "ok", "onnxruntime 1.31 crashes"),
        ("10.0.2", "note", "2.3 times as long"),
        ("11.1.3", "note", "SIGILL"),
        ("6.0.0", "note", "7.2 is the one that was tested"),
        (None, "note", "does not tell its version"),
    ],
)
def test_what_is_known_of_a_version_of_qemu_is_said(version, state, says):
    found = _qemu(version)
    assert found.state == state
    assert says in found.says


def test_help_has_an_example(tmp_path):
    assert "Example:\n  " in edgekit("doctor", "--help", cwd=tmp_path).stdout
