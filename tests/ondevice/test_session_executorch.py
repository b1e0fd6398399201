"""ExecuTorch's half of the runner: threads, inputs, failures, silence."""

from pathlib import Path

import numpy as np
import pytest
from networks import noise
from steps import built
from torch import nn

from edgekit.errors import BadInput
from edgekit.ondevice.runner.session_executorch import version
from edgekit.runtimes.executorch import convert


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    task, graph = built(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()), [noise(1, 3, 16, 16)])
    return convert(graph, task.model, task, tmp_path_factory.mktemp("program"), [])


def threads_here():
    return len(list(Path("/proc/self/task").iterdir()))


def test_sessions_of_different_threads_take_turns_and_each_has_its_own_number(program):
    from executorch.extension.pybindings import _C

    call = {"x": noise(1, 3, 16, 16)}
    runs = {threads: program.open(threads=threads) for threads in (1, 2, 3)}
    expected, alone = runs[1](call), threads_here()
    for threads in (2, 1, 3, 3, 1, 2, 2):
        found = runs[threads](call)
        assert _C._threadpool_get_thread_count() == threads
        assert threads_here() == alone + threads - 1
        assert np.allclose(found[0], expected[0], atol=1e-5)


def test_an_output_is_its_own_and_survives_the_next_call(program):
    run = program.open()
    first = run({"x": noise(1, 3, 16, 16)})[0]
    before = first.copy()
    run({"x": noise(1, 3, 16, 16, seed=1)})
    assert np.array_equal(first, before)


def test_arrays_that_are_read_only_or_not_contiguous_are_taken(program):
    array = noise(1, 16, 3, 16).transpose(0, 2, 1, 3)
    array.setflags(write=False)
    run = program.open()
    assert np.array_equal(run({"x": array})[0], run({"x": array.copy("C")})[0])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (noise(2, 3, 16, 16), r"Expected shape \(1, 3, 16, 16\), but received \(2, 3, 16, 16\)"),
        (np.zeros((1, 3, 16, 16), np.int64), "expected Float but was Long"),
    ],
)
def test_a_call_that_fails_says_why_and_the_next_one_works(program, array, reason):
    run = program.open()
    with pytest.raises(BadInput, match=reason):
        run({"x": array})
    assert run({"x": noise(1, 3, 16, 16)})[0].shape == (1, 16, 14, 14)


def test_a_file_that_is_no_program_is_refused_with_the_reason(program, tmp_path):
    path = tmp_path / "model.pte"
    path.write_bytes(b"x" * 200)
    with pytest.raises(BadInput, match="executorch refuses it: Program identifier"):
        type(program)(runtime="executorch", path=path, inputs=("x",), outputs=("y",)).open()


def test_nothing_is_written_to_the_terminal(program, capfd):
    program.open(threads=2)({"x": noise(1, 3, 16, 16)})
    program.open(threads=1)({"x": noise(1, 3, 16, 16)})
    assert capfd.readouterr() == ("", "")


def test_the_version_is_that_of_the_package():
    assert version() == "1.5.1"
