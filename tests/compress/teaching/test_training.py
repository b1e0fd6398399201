import copy
import json
import math
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import TinyCnn, noise, task_of
from safetensors import safe_open
from steps import context_of
from torch import nn

from edgekit.compress.distill import Distill
from edgekit.compress.teaching.held_out import Best, judge_of
from edgekit.compress.teaching.lesson import Lesson
from edgekit.compress.teaching.losses import relative_distance
from edgekit.compress.teaching.partly import layers_with_weights, recomputed, unfreeze
from edgekit.compress.teaching.training import train
from edgekit.compress.teaching.training_data import as_inputs, batches_of_calls, held_out
from edgekit.compress.teaching.training_options import Training
from edgekit.errors import BadInput, OutsideFailure


def same(one, other):
    """Whether two networks have the same parameters and statistics."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def student():
    torch.manual_seed(1)
    return TinyCnn(8).eval()


# A training whose data is shuffled and shifted by generators of its own, and a network with dropout: all that
# is drawn must be drawn again as it was. `killed` ends the process in the middle of the third pass.
SCRIPT = """
import os, random, signal, tempfile
from pathlib import Path
import numpy as np, torch
from networks import TinyCnn, noise, task_of
from steps import context_of
from edgekit.compress.distill import Distill

class Dropping(TinyCnn):
    def __init__(self, width):
        super().__init__(width)
        self.down.append(torch.nn.Dropout(0.2))

    def forward(self, x):
        drawn = random.uniform(0.9, 1.1) + np.random.rand() * 0.1 if self.training else 1.0
        return super().forward(x * drawn)

class Shuffled:
    def __init__(self, killed):
        self.own, self.killed, self.passes = torch.Generator().manual_seed(5), killed, 0
    def __len__(self):
        return 6
    def __iter__(self):
        self.passes += 1
        for number, part in enumerate(torch.randperm(48, generator=self.own).split(8)):
            if self.killed and self.passes == 3 and number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            images = torch.from_numpy(noise(48, 1, 16, 16))[part]
            moved = images * random.uniform(0.9, 1.1) + float(np.random.randn()) * 0.1 + torch.rand(1)
            yield moved, part % 10

def taught(folder, killed=False, **options):
    torch.manual_seed(3)
    teacher, student = Dropping(16), Dropping(8).eval()
    calls = [(noise(1, 1, 16, 16, seed=seed),) for seed in range(6)]
    data = Shuffled(killed)
    task = task_of(teacher, calls[0], calls=calls, training=lambda: data)
    place = Path(folder) / "unfinished" if folder else None
    context = context_of(task, None, Path(tempfile.mkdtemp()), unfinished=place)
    return Distill(epochs=4, **options).apply(student, task, context)
"""


@pytest.mark.parametrize(
    "options",
    [{"kind": "features"}, {"optimiser": "adamw", "schedule": "cosine", "unfreeze": 3}],
    ids=["sgd", "adamw"],
)
def test_a_training_killed_in_the_third_epoch_goes_on_to_the_same_weights(options, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    call = f"['taught']({str(tmp_path)!r}, killed=True, **{options})"
    code = f"import runpy; runpy.run_path({str(script)!r}){call}"
    tests = Path(__file__).parents[2]
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tests)!r}); {code}"]
    ended = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (kept,) = (tmp_path / "unfinished").iterdir()
    assert kept.suffix == ".safetensors"
    taught = runpy.run_path(str(script))["taught"]
    passes = []
    data = taught.__globals__["Shuffled"]
    read = data.__iter__
    data.__iter__ = lambda self: passes.append(self) or read(self)
    resumed, whole = taught(tmp_path, **options), taught(tmp_path / "whole", **options)
    assert same(resumed, whole)
    assert len(passes) == 4 + 4  # two read again, two trained; and four of the whole
    assert last_state(tmp_path) == last_state(tmp_path / "whole")


def last_state(folder):
    """All that a training left: weights, the optimiser's and the schedule's state, scores, generators."""
    (path,) = (folder / "unfinished").iterdir()
    with safe_open(path, framework="pt") as file:
        words = json.loads(file.metadata()["edgekit"])
        tensors = {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118 - no mapping
    assert words["epochs"] == 4
    del words["seconds"]
    return words, tensors


def test_a_finished_training_is_not_done_again(tiny_cnn, student, tmp_path):
    class Exhausted(list):
        def __iter__(self):
            raise AssertionError("read again")

    context = context_of(tiny_cnn, None, tmp_path, unfinished=tmp_path / "unfinished")
    once = Distill(epochs=1).apply(student, tiny_cnn, context)
    spent = replace(tiny_cnn, training=lambda: Exhausted(tiny_cnn.training()))
    assert same(Distill(epochs=1).apply(student, spent, context), once)
    with pytest.raises(AssertionError, match="read again"):
        list(spent.training())
    assert len(list((tmp_path / "unfinished").iterdir())) == 1
    other = Distill(epochs=1, alpha=0.5).apply(student, tiny_cnn, context)
    assert not same(other, once)
    assert len(list((tmp_path / "unfinished").iterdir())) == 2


def test_a_state_that_cannot_be_read_is_begun_anew(tiny_cnn, student, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path, unfinished=tmp_path / "unfinished")
    once = Distill(epochs=1).apply(student, tiny_cnn, context)
    (kept,) = (tmp_path / "unfinished").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert same(Distill(epochs=1).apply(student, tiny_cnn, context), once)


def test_a_state_that_cannot_be_written_is_said_in_one_line(tiny_cnn, student, tmp_path):
    (tmp_path / "file").touch()
    context = context_of(tiny_cnn, None, tmp_path, unfinished=tmp_path / "file")
    with pytest.raises(OutsideFailure, match=r"cannot be written: .*; free some space"):
        Distill(epochs=1).apply(student, tiny_cnn, context)


def test_the_time_limit_stops_after_the_running_batch(tiny_cnn, student, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    taught = Distill(epochs=1000, time_limit=1.5).apply(student, tiny_cnn, context)
    (report,) = context.reports
    assert 1.5 <= report.seconds < 20
    assert report.notes[0].endswith("stopped by the time limit of 1.5 s")
    assert not same(taught, student)


def test_where_no_epoch_comes_closer_it_stops_and_gives_the_weights_of_the_start(tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    taught = Distill(epochs=9, learning_rate=0.3, patience=2).apply(tiny_cnn.model, tiny_cnn, context)
    assert same(taught, tiny_cnn.model)
    note = context.reports[0].notes[0]
    assert note.startswith("kept the weights of the start of 2 (asked 9), 100.0% agreement with the original")
    assert note.endswith("stopped by 2 epochs that came no closer")


def test_the_weights_that_are_kept_are_those_of_the_epoch_that_came_closest(tiny_cnn, student):
    inputs = [as_inputs({"x": call[0]}) for call in tiny_cnn.calibration]
    seen = [copy.deepcopy(student)]
    lesson = Lesson(
        step="distill",
        epochs=4,
        loss=relative_distance,
        optimiser=Training(learning_rate=0.1, schedule="constant").optimiser_of,
        after=lambda _done, _loss: seen.append(copy.deepcopy(taught)),
        keep_best=True,
        judged=inputs,
    )
    taught = copy.deepcopy(student).train()
    trained = train(taught, tiny_cnn, lesson)
    judge = judge_of(tiny_cnn.model, inputs)
    scores = [judge.score(network.eval()) for network in seen]
    assert trained.kept == scores.index(max(scores)) > 0
    assert same(taught, seen[trained.kept])
    assert trained.end == judge.words(max(scores))
    assert taught.training


def test_a_network_that_gives_nan_is_never_the_best(tiny_cnn, student):
    best = Best(judge=judge_of(tiny_cnn.model, [as_inputs({"x": tiny_cnn.calibration[0][0]})]))
    best.look(student)
    broken = copy.deepcopy(student)
    nn.init.constant_(broken.head.bias, math.nan)
    best.look(broken)
    assert best.epoch == 0


@pytest.mark.parametrize("data", ["training", "calibration"])
@pytest.mark.parametrize(
    "options",
    [
        {"optimiser": "adamw"},
        {"optimiser": "adam", "schedule": "cosine"},
        {"schedule": "step"},
        {"schedule": "constant"},
    ],
)
def test_every_optimiser_and_schedule_brings_the_student_closer(tiny_cnn, student, options, data, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    step = Distill(epochs=2 if data == "training" else 16, data=data, **options)
    taught = step.apply(student, tiny_cnn, context)
    judge = judge_of(tiny_cnn.model, [as_inputs({"x": call[0]}) for call in tiny_cnn.calibration])
    assert judge.score(taught) > judge.score(student)
    assert judge.score(taught)[1] > 0.3


@settings(max_examples=60, deadline=None)
@given(
    schedule=st.sampled_from(["one-cycle", "cosine", "step", "constant"]),
    optimiser=st.sampled_from(["sgd", "adamw", "adam"]),
    steps=st.integers(1, 40),
    rate=st.floats(1e-4, 0.5),
)
def test_the_learning_rate_is_never_above_the_one_asked_for(schedule, optimiser, steps, rate):
    parameter = nn.Parameter(torch.ones(2))
    options = Training(schedule=schedule, optimiser=optimiser, learning_rate=rate)
    made, plan = options.optimiser_of([parameter], steps)
    rates = []
    for _ in range(steps):
        rates.append(made.param_groups[0]["lr"])
        parameter.grad = torch.ones(2)
        made.step()
        plan.step()
    assert max(rates) <= rate * 1.000001
    assert min(rates) > 0
    if schedule == "constant":
        assert set(rates) == {rate}
    elif steps >= 8:
        assert rates[-1] < rate / 2


def test_progress_shows_loss_quality_and_the_time_left(tiny_cnn, student, tmp_path):
    said = []
    context = context_of(tiny_cnn, None, tmp_path, detail=said.append)
    Distill(epochs=2).apply(student, tiny_cnn, context)
    assert said[-1].startswith("epoch 2 of 2, loss ")
    assert said[-1].endswith(" agreement, 0 s left")


def test_layers_join_in_from_the_last_back(tiny_cnn, student, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    student.stem[0].weight.requires_grad_(False)
    taught = Distill(epochs=1, unfreeze=1).apply(student, tiny_cnn, context)
    assert torch.equal(taught.down[0].weight, student.down[0].weight)
    assert not torch.equal(taught.head.weight, student.head.weight)
    assert [p.requires_grad for p in taught.parameters()] == [p.requires_grad for p in student.parameters()]


@given(layers=st.integers(1, 12), epochs=st.integers(0, 6))
def test_in_each_epoch_no_fewer_layers_are_trained_and_in_the_end_all(layers, epochs):
    network = nn.Sequential(*(nn.Linear(1, 1) for _ in range(layers)))
    found = layers_with_weights(network)
    counts = [unfreeze(found, epoch, epochs) for epoch in range(epochs + 1)]
    assert counts == sorted(counts)
    assert counts[-1] == layers
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_gradient_checkpointing_gives_the_same_network(tiny_cnn, student, tmp_path):
    student.down[1].momentum = None  # a cumulative average, which a second look at a batch would spoil
    few = replace(tiny_cnn, training=lambda: list(tiny_cnn.training())[:4])
    step = Distill(epochs=2)
    plain = step.apply(student, few, context_of(few, None, tmp_path))
    lean = step.model_copy(update={"gradient_checkpointing": True}).apply(
        student, few, context_of(few, None, tmp_path)
    )
    assert same(plain, lean)
    assert "forward" not in vars(lean.stem[0])


def test_blocks_are_computed_again_in_the_backward_pass_only():
    network = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.ReLU(), nn.Linear(4, 2))
    runs = []
    network[0][0].register_forward_hook(lambda *_: runs.append(1))
    with recomputed(network) as blocks:
        assert blocks == 2
        loss = network(torch.randn(3, 4)).sum()
        assert len(runs) == 1
        loss.backward()
        assert len(runs) == 2
        with torch.no_grad():
            network(torch.randn(3, 4))
        assert len(runs) == 3
    assert int(network[0][1].num_batches_tracked) == 2


def test_mixed_precision_changes_nothing_on_a_cpu(tiny_cnn, student, tmp_path):
    few = replace(tiny_cnn, training=lambda: list(tiny_cnn.training())[:2])
    one, other = (
        Distill(epochs=1, mixed_precision=mixed).apply(student, few, context_of(few, None, tmp_path))
        for mixed in (True, False)
    )
    assert same(one, other)


def test_the_seed_decides_what_is_drawn(tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    start = TinyCnn(8).eval()
    one, again, other = (
        Distill(epochs=1, data="calibration", seed=seed).apply(start, tiny_cnn, context) for seed in (1, 1, 2)
    )
    assert same(one, again)
    assert not same(one, other)


def test_calibration_calls_are_trained_on_where_there_is_nothing_else(tiny_cnn, student, tmp_path):
    bare = replace(tiny_cnn, training=None)
    context = context_of(bare, None, tmp_path)
    taught = Distill(epochs=30, data="calibration").apply(student, bare, context)
    unseen = torch.from_numpy(np.concatenate([call[0] for call in tiny_cnn.calibration[::5]]))
    with torch.no_grad():
        wanted, before, after = (net(unseen).argmax(1) for net in (bare.model, student, taught))
    assert float((after == wanted).float().mean()) > float((before == wanted).float().mean()) + 0.3
    nothing = replace(bare, calibration=None)
    with pytest.raises(BadInput, match=r"^distill net: there is no calibration data to train on.*; add `cal"):
        Distill(data="calibration").apply(student, nothing, context_of(nothing, None, tmp_path))


@given(st.integers(1, 70), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_every_call_is_in_a_pass_once(count, seed):
    torch.manual_seed(seed)
    calls = [{"x": np.full((1, 3), index, np.float32)} for index in range(count)]
    batches = batches_of_calls(nn.Linear(3, 2).eval(), calls)
    parts = [inputs[0] for inputs, _ in batches]
    assert len(parts) == len(batches) == math.ceil(count / 16)
    assert sorted(torch.cat(parts)[:, 0].tolist()) == list(range(count))
    taught, judged = held_out(calls)
    if count >= 10:
        values = sorted(float(call["x"][0, 0]) for call in (*taught, *judged))
        assert values == list(range(count))


def test_a_network_made_for_one_call_is_trained_on_one_at_a_time(tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(12, 3)

        def forward(self, x):
            return self.layer(x.reshape(1, 12))

    torch.manual_seed(0)
    calls = [(noise(1, 3, 4, seed=seed),) for seed in range(12)]
    task = task_of(Fixed(), calls[0], calls=calls)
    torch.manual_seed(1)
    student, context = Fixed().eval(), context_of(task, None, tmp_path)
    assert batches_of_calls(task.model, context.calls).together == 1
    taught = Distill(data="calibration", epochs=20).apply(student, task, context)
    judge = judge_of(task.model, [as_inputs(call) for call in context.calls])
    assert judge.score(taught) > judge.score(student)
