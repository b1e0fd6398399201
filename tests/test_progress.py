import os
import pty
import subprocess
import sys
import textwrap

import pytest

PREFACE = """
import os, signal, sys, time, traceback, warnings
from edgekit.progress import Progress
def noise():
    os.write(1, b"native out\\n"); os.write(2, b"native err\\n")
    print("python out"); print("python err", file=sys.stderr)
"""


def program(code):
    return [sys.executable, "-c", PREFACE + textwrap.dedent(code)]


def run(code, **more):
    """Run a program whose two streams are pipes."""
    return subprocess.run(program(code), capture_output=True, text=True, timeout=60, check=False, **more)


def run_on_terminal(code):
    """Run a program on a pseudo-terminal; returns all that it wrote there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(program(code), stdout=theirs, stderr=theirs, env=environment) as child:
        os.close(theirs)
        seen = b""
        while piece := _read(ours):
            seen += piece
        child.wait(timeout=60)
    os.close(ours)
    return seen.decode()


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end was closed
        return b""


def test_a_finished_stage_is_one_plain_line_on_standard_error_and_libraries_are_kept_back():
    done = run("""
        progress = Progress()
        with progress.stage("quantizing [bold]x[/bold]"):
            noise()
        print("result")
    """)
    assert done.stdout == "result\n"
    assert done.stderr.startswith("✓ quantizing [bold]x[/bold] 0.")
    assert done.stderr.count("\n") == 1


def test_quiet_shows_warnings_only():
    done = run("""
        progress = Progress(quiet=True)
        with progress.stage("outer"):
            noise()
            progress.warn("no labels [1]\\n\\x1b[31m")
            progress.warn("no labels [1]\\n\\x1b[31m")
        assert len(progress.warnings) == 1
    """)
    assert done.returncode == 0
    assert done.stderr == "warning: no labels [1] \ufffd[31m\n"
    assert done.stdout == ""


def test_verbose_lets_libraries_through_below_the_title_and_keeps_standard_output_for_results():
    done = run("""
        with Progress(verbose=True).stage("outer"):
            noise()
        print("result")
    """)
    assert done.stdout == "result\n"
    assert done.stderr.splitlines()[:3] == ["outer ...", "native out", "native err"]
    assert {"python out", "python err"} < set(done.stderr.splitlines())


def test_a_failure_gives_the_streams_back_and_carries_what_libraries_wrote_last():
    done = run("""
        try:
            with Progress().stage("outer"):
                for number in range(100):
                    print("line", number)
                os.write(2, b"native\\x1b[2J last words")
                raise ValueError("broken")
        except ValueError:
            traceback.print_exc()
        print("after")
    """)
    assert done.stdout == "after\n"
    assert "✓" not in done.stderr
    assert "line 98" in done.stderr
    assert "line 3\n" not in done.stderr
    assert done.stderr.endswith("native\ufffd[2J last words\n")


def test_a_failure_that_libraries_said_nothing_about_has_no_note():
    done = run("""
        try:
            with Progress().stage("outer"):
                raise ValueError("broken")
        except ValueError as error:
            print(getattr(error, "__notes__", []))
    """)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("closing", ["2>&-", ">&- 2>&-", ">&-"])
def test_closed_streams_stop_nothing(closing, verbose, tmp_path):
    path = tmp_path / "result"
    code = f"""
        import pathlib
        progress = Progress(verbose={verbose})
        with progress.stage("outer") as detail:
            detail("more"); progress.warn("careful")
        progress.say("done")
        pathlib.Path(sys.argv[1]).write_text("whole")
    """
    command = ["sh", "-c", f'exec "$0" "$@" {closing}', *program(code), str(path)]
    subprocess.run(command, timeout=60, check=True)
    assert path.read_text() == "whole"


def test_on_a_terminal_the_live_line_goes_and_what_python_prints_is_kept_back_too():
    seen = run_on_terminal("""
        progress = Progress()
        with progress.stage("outer") as detail:
            detail("epoch 3"); noise(); time.sleep(0.3)
        print("after")
    """)
    assert "outer: epoch 3" in seen
    assert "python" not in seen
    assert "native" not in seen
    last = seen.split("\x1b[?25h")[-1]  # the cursor is shown again
    assert "✓" in last
    assert last.endswith("after\r\n")


def test_an_interrupt_takes_the_live_line_away_and_gives_the_streams_back():
    seen = run_on_terminal("""
        try:
            with Progress().stage("outer"):
                noise(); time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGINT); time.sleep(5)
        except KeyboardInterrupt:
            print("interrupted"); os.write(2, b"native again\\n")
    """)
    last = seen.split("\x1b[?25h")[-1]
    assert "outer" not in last
    assert last.endswith("interrupted\r\nnative again\r\n")
    assert "native err" not in seen


def test_a_stream_that_cannot_write_the_mark_still_shows_the_stage():
    done = run(
        """
        with Progress().stage("outer"):
            pass
        """,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert "outer" in done.stderr


def test_a_secret_is_asked_on_the_terminal_in_the_middle_of_a_stage_and_not_shown():
    ours, theirs = pty.openpty()
    code = """
        os.setsid()
        import fcntl, termios
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        progress = Progress()
        with progress.stage("connecting") as detail:
            secret = progress.ask("password of pi@kitchen")
            detail("connected")
        print(secret == "geheim")
    """
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        program(code), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as child:
        os.close(theirs)
        seen = b""
        while b"password of pi@kitchen: " not in seen and (piece := _read(ours)):
            seen += piece
        os.write(ours, b"geheim\n")
        while piece := _read(ours):
            seen += piece
        child.wait(timeout=60)
    os.close(ours)
    assert b"True" in seen
    assert b"geheim" not in seen
