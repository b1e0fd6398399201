import pytest

from edgekit.devices.device import run, started
from edgekit.devices.here import Here


def test_a_command_that_does_not_read_its_input_is_run_to_its_end():
    done = run(Here(), ["sh", "-c", "exec <&-; sleep 0.1; echo done"], given=b"x" * 1000)
    assert (done.status, done.stdout) == (0, b"done\n")


def test_a_started_command_is_ended_when_its_block_fails():
    with pytest.raises(ZeroDivisionError), started(Here(), ["sleep", "1000"]) as process:
        _ = 1 // 0
    assert process.status() == 137
