import time

import pytest
from sshd import is_alive

from edgekit.devices.device import ConnectionLost, run, started
from edgekit.devices.here import Here


def test_a_command_gets_its_arguments_and_input_as_they_are():
    done = run(
        Here(), ["sh", "-c", 'printf "%s|" "$@"; cat; echo err >&2; exit 3', "sh", "a b", "*"], given=b"in"
    )
    assert (done.status, done.stdout, done.stderr) == (3, b"a b|*|in", "err\n")


def test_a_program_that_is_not_there_has_the_status_that_a_shell_gives():
    done = run(Here(), ["no-such-program"], given=b"x")
    assert (done.status, done.stderr) == (127, "no-such-program: No such file or directory\n")


def test_the_end_by_a_signal_is_a_status():
    assert run(Here(), ["sh", "-c", "kill -9 $$"]).status == 137


def test_silence_counts_as_a_lost_connection():
    with (
        started(Here(), ["sleep", "100"], silence=0.1) as process,
        pytest.raises(ConnectionLost, match="no answer"),
    ):
        process.read()


def test_what_is_stopped_ends_with_its_children():
    with started(Here(), ["sh", "-c", "sleep 1234 & echo $!; wait"]) as process:
        child = process.read()[1].decode().strip()
        assert is_alive(child)
    end = time.monotonic() + 20
    while is_alive(child):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_this_machine_is_here_and_always_connected():
    device = Here()
    assert device.is_here
    device.reconnect(patience=0, detail=print)
    device.close()
    assert run(device, ["true"]).status == 0
