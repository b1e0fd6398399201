"""The runner's half of counting, where nothing counts: the marks do no harm, the outputs are checked."""

import gc
import json
import subprocess
import sys

import pytest

from edgekit.devices.local import RUNNER
from edgekit.ondevice.runner import counting


def run(bundle):
    command = [sys.executable, RUNNER, "--bundle", bundle, "--count"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_tells_what_it_ran_and_no_time(bundle):
    done = run(bundle)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["inferences"], found["threads"]) == (counting.INFERENCES, 1)
    assert found["runtime"]["name"] == "onnxruntime"
    assert found["bundle"]["name"] == "tiny"
    assert "_ms" not in done.stdout
    assert done.stderr.splitlines() == ["loading the model", "comparing the golden outputs", "counting"]


def test_outputs_are_checked_before_anything_is_counted(bundle):
    (bundle / "golden.npz").write_bytes(b"")
    done = run(bundle)
    assert (done.returncode, done.stdout) == (5, "")
    assert "check failed" in done.stderr


def test_the_calls_are_those_that_warm_up_and_those_that_count():
    calls = []
    counting.run_marked(calls.append, "feeds")
    assert calls == ["feeds"] * (counting.WARM_UP_CALLS + counting.INFERENCES)


def test_no_garbage_is_collected_while_it_counts_and_it_is_again_after_a_failure():
    seen = []

    def call(feeds):
        seen.append(gc.isenabled())
        if len(seen) > counting.WARM_UP_CALLS:
            raise ValueError("the runtime's own")

    with pytest.raises(ValueError, match="own"):
        counting.run_marked(call, None)
    assert seen == [True] * counting.WARM_UP_CALLS + [False]
    assert gc.isenabled()
