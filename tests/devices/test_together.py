import contextlib
import subprocess
import sys
import threading

import pytest

from edgekit.devices.together import Together
from edgekit.errors import OutsideFailure


def test_all_work_at_the_same_time_and_to_their_end():
    meeting, done = threading.Barrier(3, timeout=20), []

    def work():
        meeting.wait()
        done.append(1)

    Together(None).run([work] * 3)
    assert done == [1] * 3
    Together(None).run([])


def test_questions_are_answered_in_the_main_thread():
    asked, answers = [], {}

    def answer(prompt):
        asked.append((prompt, threading.current_thread() is threading.main_thread()))
        return f"secret of {prompt}"

    together = Together(answer)

    def work(name):
        answers[name] = together.ask(name)

    together.run([lambda: work("kitchen"), lambda: work("garage")])
    assert sorted(asked) == [("garage", True), ("kitchen", True)]
    assert answers == {"kitchen": "secret of kitchen", "garage": "secret of garage"}
    assert Together(None).ask is None


# In a process of its own: signals and the native libraries of other tests do not go together.
INTERRUPTED = """
import os, signal, threading, time
from edgekit.devices.together import Together
together, left, never = Together(None), [], threading.Event()
def busy():
    with together.on_device():
        together.stopped.wait(20)
        time.sleep(0.5)
        left.append(1)
def press():
    while not together._on_devices:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
begun = time.monotonic()
try:
    together.run([busy, lambda: never.wait(60)])
except KeyboardInterrupt:
    print(left, time.monotonic() - begun < 15)
"""


def test_ctrl_c_waits_for_those_who_have_something_on_their_device_and_for_nobody_else():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[1] True\n"), done.stderr


@pytest.mark.parametrize("key", [KeyboardInterrupt, EOFError])
def test_ctrl_c_and_ctrl_d_at_a_question_end_all(key):
    refused = threading.Event()

    def answer(prompt):
        raise key

    together = Together(answer)

    def work():
        with contextlib.suppress(OutsideFailure):
            together.ask("password")
        if together.stopped.is_set():
            refused.set()

    with pytest.raises(KeyboardInterrupt):
        together.run([work])
    assert refused.wait(20)
