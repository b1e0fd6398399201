import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundles import packed

from edgekit.devices.local import run_own_runner
from edgekit.errors import BadInput, OutsideFailure, VerificationFailed


def silent(line):
    pass


def processes_with(word):
    """Command lines of the processes that name `word`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in command:
            found.append(command)
    return found


def test_the_runners_json_is_returned_and_its_progress_handed_on(bundle):
    lines = []
    record = run_own_runner(bundle, ["--bench", "--quick"], seconds=100, detail=lines.append)
    assert record["schema"] == "edgekit.bench/1"
    assert "measuring memory in a run of its own" in lines
    assert any(line.startswith("measuring: ") for line in lines)


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (
            lambda bundle: (bundle / "model.onnx").write_bytes(b""),
            VerificationFailed,
            r"model\.onnx has 0 bytes",
        ),
        (lambda bundle: (bundle / "manifest.json").unlink(), BadInput, "is this an edgekit bundle"),
    ],
)
def test_the_runners_refusals_keep_their_class_and_words(bundle, damage, kind, words):
    damage(bundle)
    with pytest.raises(kind, match=words):
        run_own_runner(bundle, ["--check", "--json"], seconds=100, detail=silent)


def test_a_runner_that_takes_too_long_is_ended_with_all_it_started(bundle):
    with pytest.raises(OutsideFailure, match="did not finish in 1 s"):
        run_own_runner(bundle, ["--bench"], seconds=1, detail=silent)
    assert processes_with(str(bundle)) == []


def test_the_bundles_own_programs_are_never_executed(bundle, tmp_path):
    trap = f"open({str(tmp_path / 'executed')!r}, 'w')"
    for path in [
        bundle / "run.py",
        *(bundle / "runner").glob("*.py"),
        bundle / "numpy.py",
        bundle / "json.py",
    ]:
        path.write_text(trap)
    with pytest.raises(VerificationFailed):
        run_own_runner(bundle, ["--check", "--json"], seconds=100, detail=silent)
    run_own_runner(bundle, ["--memory"], seconds=100, detail=silent)
    assert not (tmp_path / "executed").exists()


def test_ctrl_c_ends_the_runner_and_all_it_started(tmp_path):
    bundle = packed(tmp_path / "interrupted")
    program = (
        "import sys; from pathlib import Path; from edgekit.bench import bench;"
        "bench(Path(sys.argv[1]), mode='standard', detail=lambda line: print(line, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, bundle], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "measuring: " not in process.stdout.readline():
        assert process.poll() is None
    assert len(processes_with(str(bundle))) >= 2
    os.kill(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    deadline = time.monotonic() + 10
    while processes_with(str(bundle)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(str(bundle)) == []
