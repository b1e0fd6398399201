"""torch's half of the runner."""

import pytest
import torch
from networks import noise
from steps import built
from torch import nn

from edgekit.errors import BadInput
from edgekit.ondevice.runner.session_torch import version
from edgekit.runtimes.torch import convert


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    task, graph = built(nn.Linear(8, 4), [noise(2, 8)])
    return convert(graph, task.model, task, tmp_path_factory.mktemp("program"), [])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_call_has_the_threads_asked_for_and_the_process_its_own_after_it(program, threads, monkeypatch):
    before, given = torch.get_num_threads(), []
    run = program.open(threads=threads)
    set_threads = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (given.append(n), set_threads(n)))
    run({"x": noise(2, 8)})
    assert given == [threads, before]
    assert torch.get_num_threads() == before


def test_a_call_of_another_shape_fails_and_leaves_the_threads(program):
    before = torch.get_num_threads()
    with pytest.raises(BadInput, match="torch fails"):
        program.open(threads=before + 1)({"x": noise(3, 8)})
    assert torch.get_num_threads() == before


def test_the_version_is_torchs():
    assert version() == torch.__version__
