import contextlib
import os
import signal
import threading
import time

import pytest

from edgekit.devices.together import Together
from edgekit.errors import OutsideFailure


def interrupt_when(condition):
    """Press Ctrl-C as soon as it holds."""

    def watch():
        end = time.monotonic() + 20
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch).start()


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


def test_ctrl_c_waits_for_those_who_have_something_on_their_device_and_for_nobody_else():
    together, left, never = Together(None), [], threading.Event()

    def busy():
        with together.on_device():
            together.stopped.wait(20)
            time.sleep(0.5)
            left.append(1)

    def connecting():
        never.wait(60)

    interrupt_when(lambda: together._on_devices)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        together.run([busy, connecting])
    assert left == [1]
    assert time.monotonic() - begun < 15
    never.set()


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
