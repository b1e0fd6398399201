"""Run inferences for an emulator that counts instructions (docker/count.c): nothing is timed here.

The emulator takes a reading when the program makes a system call that otherwise does nothing. All that
happens between two readings is counted, in every thread of this process and in no other process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from typing import Any, Callable, Dict

INFERENCES = 5
# The interpreter rewrites a function's byte code around its tenth call, which costs some thousand
# instructions. Where fewer fit into these seconds, that is too little of an inference to show.
WARM_UP_CALLS, WARM_UP_SECONDS = 16, 5.0
MARK = 0x6B000000  # what count.c waits for; no process has such a number


def count(runner: Any, bundle: str, say: Callable[[str], None]) -> Dict[str, Any]:
    """Compare the golden outputs, then run the first golden sample between readings, by one thread.

    Reading 2 k is taken before the inference k, reading 2 k + 1 after it.

    Args:
        runner: the module `run`.
        bundle: its folder.
        say: takes one line of progress.

    Returns:
        What was run: `bundle`, `inferences`, `threads`, `runtime`, `facts`. The counts are the emulator's, on
        standard error.
    """
    manifest = runner.read_manifest(bundle)
    runner.refuse_damage(bundle, manifest)
    say("loading the model")
    samples = runner.read_golden(bundle, manifest)
    model = runner.load(bundle, 1)
    say("comparing the golden outputs")
    runner.compare_golden(bundle, model, samples)
    say("counting")
    runner.with_runtime(bundle, lambda: run_marked(model.run, samples[0][0]))
    session = runner.session(manifest)
    return {
        "bundle": runner.part("benchmark").describe_bundle(manifest),
        "inferences": INFERENCES,
        "threads": model.threads,
        "runtime": {"name": manifest["runtime"]["name"], "version": session.version()},
        "facts": runner.part("facts").gather(("numpy", *session.PACKAGES)),
    }


def run_marked(call: Callable[[Any], Any], feeds: Any) -> None:
    """Inferences between marks, after some that are not counted."""
    end = time.monotonic() + WARM_UP_SECONDS
    for _ in range(WARM_UP_CALLS):
        between(0, call, feeds)
        if time.monotonic() > end:
            break
    gc.collect()
    gc.disable()  # it would run in whichever inference it falls due
    try:
        for number in range(INFERENCES):
            between(2 * number, call, feeds)
    finally:
        gc.enable()


def between(number: int, call: Callable[[Any], Any], feeds: Any) -> None:
    """One inference between two marks."""
    mark(number)
    call(feeds)
    mark(number + 1)


def mark(number: int) -> None:
    """Ask the emulator for a reading; any other system answers that there is no such process."""
    with contextlib.suppress(OSError):
        os.getpriority(os.PRIO_PROCESS, MARK + number)
