import json
import subprocess
import sys

import pytest
from command import edgekit, refusal

from edgekit.cli.main import COMMANDS, left_behind
from edgekit.errors import (
    BadInput,
    BudgetNotMet,
    EdgekitError,
    OutsideFailure,
    VerificationFailed,
)

HEAVY = "numpy onnx onnxruntime torch nncf openvino rich yaml pydantic sklearn torch_pruning".split()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "bash"], ["buidl"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys, json\n"
        "from edgekit.cli.main import main\n"
        f"sys.argv = ['edgekit', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert loaded & set(HEAVY) == set()
    assert "click" in loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, tmp_path):
    text = edgekit(name, "--help", cwd=tmp_path).stdout
    assert "Example:" in text
    assert f"edgekit {name}" in text


def test_a_command_that_is_misspelt_is_refused_with_the_near_miss(tmp_path):
    done = edgekit("buidl", cwd=tmp_path, expect=2)
    assert "build" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_option_that_is_misspelt_is_refused_with_the_near_miss(tmp_path):
    done = edgekit("build", "x", "--targt", "rpi4", cwd=tmp_path, expect=2)
    assert "--target" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell, tmp_path):
    assert "_EDGEKIT_COMPLETE" in edgekit("completion", shell, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("edgekit build --target rpi", "plain,rpi4"),
        ("edgekit targets show jetson", "plain,jetson-nano"),
        ("edgekit build --target mine/", "file,mine/"),
        ("edgekit build exa", "file,exa"),
        ("edgekit bench dist", "file,dist"),
        ("edgekit plan x.onnx --calibration da", "file,da"),
    ],
)
def test_completion_offers_targets_and_files(words, offered, tmp_path):
    variables = {
        "_EDGEKIT_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    assert offered in edgekit(cwd=tmp_path, **variables).stdout.splitlines()


def test_an_interrupted_command_says_what_it_leaves():
    assert left_behind(["build", "task.py", "-t", "rpi4"]).startswith("finished stages are kept")
    for arguments in (["build", "task.py", "-t", "rpi4", "--no-cache"], ["bench", "dist/build"], []):
        assert left_behind(arguments).startswith("nothing is kept")


def test_completion_offers_the_commands_in_a_real_bash(tmp_path):
    script = edgekit("completion", "bash", cwd=tmp_path).stdout
    (tmp_path / "complete.sh").write_text(script)
    offered = subprocess.run(
        [sys.executable, "-m", "edgekit"],
        env={
            "_EDGEKIT_COMPLETE": "bash_complete",
            "COMP_WORDS": "edgekit be",
            "COMP_CWORD": "1",
            "PATH": "/bin",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "bench" in offered.stdout
    assert subprocess.run(["bash", "-n", tmp_path / "complete.sh"], check=False).returncode == 0


def test_debug_shows_the_traceback_of_a_refusal(tmp_path):
    done = edgekit("--debug", "build", "none.onnx", "-t", "rpi4", cwd=tmp_path, expect=2)
    assert "Traceback" in done.stderr
    assert "BadInput" in done.stderr


def test_a_refusal_without_debug_is_one_line(tmp_path):
    assert refusal("build", "none.onnx", "-t", "rpi4", cwd=tmp_path).startswith("none.onnx: no such file")


def test_each_kind_of_refusal_has_an_exit_status_of_its_own():
    kinds = [EdgekitError, BadInput, BudgetNotMet, OutsideFailure, VerificationFailed]
    assert [kind.exit_status for kind in kinds] == [1, 2, 3, 4, 5]


def test_a_closed_pipe_is_no_error(tmp_path):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m edgekit --help | head -1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
