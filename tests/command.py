"""Run the command line as a user does, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

SMALL = Path(__file__).parent / "projects" / "small" / "task.py"


def environment(**more):
    """The environment of a user whose terminal has 100 columns."""
    return {**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1", **more}


def edgekit(*arguments, cwd, expect=0, **more):
    """Run a command; what it printed, after its exit status was compared with the one expected."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def refusal(*arguments, cwd, expect=2, **more):
    """The one line that a command is refused with."""
    done = edgekit(*arguments, cwd=cwd, expect=expect, **more)
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "internal error:"))]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr
    return lines[0].removeprefix("error: ")
