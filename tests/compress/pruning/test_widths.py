import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import DsCnn, Grouped, ONet, TinyCnn, UNet, Vit, calibrated

from edgekit.compress.pruning.narrow import narrow_by, narrowable
from edgekit.compress.pruning.schedule import shares
from edgekit.compress.pruning.widths import Group, Work, by_rank, cost, look, macs_by_layer, narrowest, widest


@st.composite
def chains(draw):
    """A chain of layers of various widths, some of them grouped, and importances of their channels."""
    step, parts = draw(st.sampled_from([1, 4, 8, 16])), draw(st.sampled_from([1, 2, 4]))
    widths = draw(st.lists(st.integers(1, 12).map(lambda n: 4 * n), min_size=2, max_size=6))
    groups = [
        Group(
            root=f"{index}", layers=(f"{index}",), width=width, parts=parts, step=min(max(step, parts), width)
        )
        for index, width in enumerate(widths)
    ]
    macs = {f"{index}": draw(st.integers(1, 10**6)) for index in range(len(widths) + 1)}
    work = Work(
        macs=macs,
        written={f"{index}": {f"{index}": 1.0} for index in range(len(widths))},
        read={f"{index + 1}": {f"{index}": 1.0} for index in range(len(widths))},
    )
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    scores = {group.root: generator.uniform(0.1, 2, group.width) for group in groups}
    return groups, work, scores


@given(chains(), st.floats(0.05, 1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_widths_have_at_most_the_work_that_was_asked_and_none_could_be_a_step_wider(
    chain, share, uniform
):
    groups, work, scores = chain
    most = share * sum(work.macs.values())
    kept = widest(groups, by_rank(scores) if uniform else scores, work, most)
    if kept is None:
        assert cost(groups, work, narrowest(groups)) > most
        return
    assert cost(groups, work, kept) <= most
    for group in groups:
        assert kept[group.root] % group.step == 0 or kept[group.root] == group.width
        assert kept[group.root] % group.parts == 0
        wider = {**kept, group.root: group.wider(kept[group.root])}
        assert wider == kept or cost(groups, work, wider) > most


@given(chains())
def test_all_of_the_work_leaves_all_channels(chain):
    groups, work, scores = chain
    kept = widest(groups, scores, work, sum(work.macs.values()) * (1 + 1e-12))
    assert kept == {group.root: group.width for group in groups}


def test_one_factor_for_all_layers_is_what_uniform_means_and_global_spends_where_it_matters():
    groups = [Group(root=name, layers=(name,), width=64) for name in "ab"]
    work = Work(macs={"a": 1000, "b": 1000}, written={"a": {"a": 1.0}, "b": {"b": 1.0}})
    scores = {"a": np.linspace(1, 3, 64), "b": np.linspace(0.1, 2, 64)}
    assert widest(groups, by_rank(scores), work, 1000) == {"a": 32, "b": 32}
    kept = widest(groups, scores, work, 1000)
    assert kept["a"] > 40
    assert kept["a"] + kept["b"] == 64


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (TinyCnn(), (1, 1, 16, 16)),
        (calibrated(DsCnn(), 1, 49, 10), (1, 1, 49, 10)),
        (calibrated(Grouped(), 3, 16, 16), (1, 3, 16, 16)),
        (calibrated(UNet(), 3, 32, 32), (1, 3, 32, 32)),
        (ONet(), (1, 3, 24, 24)),
        (Vit(), (1, 1, 16, 16)),
    ],
    ids=["residual", "depthwise", "grouped and shared", "concatenated", "flattened", "attention"],
)
def test_the_work_at_other_widths_is_what_the_narrowed_network_has(network, shape):
    network, inputs = network.eval(), (torch.zeros(shape),)
    layers = narrowable(network, inputs)
    groups, work = look(network, inputs, layers, 4)
    for seed in range(3):
        generator = np.random.default_rng(seed)
        kept = {g.root: g.rounded(int(generator.integers(1, g.width + 1))) for g in groups}
        by_layer = {name: kept[g.root] for g in groups for name in g.layers if name in layers}
        narrow = narrow_by(network, inputs, by_layer)
        assert sum(macs_by_layer(narrow, inputs).values()) == pytest.approx(cost(groups, work, kept))


@given(st.floats(0.01, 1), st.integers(2, 20), st.sampled_from(["linear", "polynomial", "exponential"]))
def test_a_schedule_comes_down_to_the_share_that_was_asked(last, rounds, schedule):
    found = shares(schedule, last, rounds)
    assert len(found) == rounds
    assert found[-1] == last
    assert all(a >= b - 1e-12 for a, b in zip([1, *found], found, strict=False))


def test_a_schedule_has_the_shape_of_its_name():
    assert shares("one-shot", 0.5, 4) == [0.5]
    assert shares("linear", 0.2, 4) == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert shares("exponential", 0.0625, 4) == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    steps = -np.diff([1, *shares("polynomial", 0.2, 4)])
    assert list(steps) == sorted(steps, reverse=True)
    assert steps[0] > 2 * steps[-1]
