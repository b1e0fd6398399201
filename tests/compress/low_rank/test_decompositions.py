import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.compress.low_rank import svd
from edgekit.compress.low_rank.cp import cp_pieces
from edgekit.compress.low_rank.hierarchical import hierarchical_module, hierarchical_ranks, overlap
from edgekit.compress.low_rank.layer import chain, is_decomposable
from edgekit.compress.low_rank.levels import Levels
from edgekit.compress.low_rank.matrix import split
from edgekit.compress.low_rank.observe import Seen, observe, output_error
from edgekit.compress.low_rank.options import Wishes, at_error, at_share, by_rule, fitting
from edgekit.compress.low_rank.tucker import tucker_pieces

METHODS = ("svd", "spatial-svd", "tucker", "hlrtf")
FULL_LEVELS = Wishes(levels=(0.5, 0.5, 0.5))


def conv(draw):
    """A convolution of any window, with or without a bias."""
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)).filter(lambda pair: pair != (1, 1)))
    torch.manual_seed(draw(st.integers(0, 1000)))
    return torch.nn.Conv2d(
        draw(st.integers(2, 9)),
        draw(st.integers(2, 9)),
        size,
        stride=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        padding=draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        bias=draw(st.booleans()),
    ).eval()


def noise(layer, seed=1):
    shape = (2, layer.in_channels, 9, 8) if hasattr(layer, "in_channels") else (5, layer.in_features)
    return Seen(samples=[torch.randn(shape, generator=torch.Generator().manual_seed(seed))])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_at_full_rank_every_decomposition_reproduces_the_layer(data):
    layer = conv(data.draw)
    for method in METHODS:
        found = at_share(layer, method, 1.0, noise(layer), FULL_LEVELS)
        assert found.error < 1e-4, method
        assert found.module(noise(layer).samples[0]).shape == layer(noise(layer).samples[0]).shape


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_the_error_falls_as_the_rank_grows_and_is_that_of_the_theory(data):
    layer = conv(data.draw)
    weight = layer.weight.detach()
    for found, pieces in (
        (svd.channel_split(layer), svd.channel_pieces),
        (svd.spatial_split(layer), svd.spatial_pieces),
    ):
        errors = []
        for rank in range(1, len(found.values) + 1):
            kernel = kernel_of(chain(pieces(layer, found, rank), layer))
            errors.append(float((kernel - weight).norm() / weight.norm()))
            assert errors[-1] == pytest.approx(found.error(rank), abs=2e-5)
        assert errors == sorted(errors, reverse=True)


def kernel_of(path):
    """The kernel that a chain of convolutions amounts to: its answer to single ones, seen from behind."""
    first, last = path[0], path[-1]
    from edgekit.compress.low_rank.levels import _kernel

    assert (first.groups, last.groups) == (1, 1)
    return _kernel(path).detach()


def test_a_linear_layer_becomes_two():
    layer = torch.nn.Linear(20, 12).eval()
    found = svd.channel_split(layer)
    module = chain(svd.channel_pieces(layer, found, 5), layer)
    assert [tuple(one.weight.shape) for one in module] == [(5, 20), (12, 5)]
    assert (
        output_error(layer, chain(svd.channel_pieces(layer, found, 12), layer), noise(layer).samples) < 1e-5
    )


def test_with_real_inputs_the_outputs_are_closer_than_with_the_weights_alone():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(12, 16, 3, padding=1).eval()
    mixing = torch.randn(12, 12) * torch.logspace(0, -2, 12)[:, None]
    calls = [
        {"x": torch.einsum("oi,nihw->nohw", mixing.T, torch.randn(1, 12, 8, 8)).numpy()} for _ in range(8)
    ]
    seen = observe(torch.nn.Sequential(layer), ["0"], calls, calls[0])["0"]
    for method in ("svd", "tucker"):
        aware = at_share(layer, method, 0.25, seen, Wishes(whiten=True))
        blind = at_share(layer, method, 0.25, seen, Wishes(whiten=False))
        assert aware.ranks == blind.ranks
        assert aware.error < 0.95 * blind.error, method


def test_whitening_is_the_best_that_the_rank_can_do_on_these_inputs():
    draw = np.random.default_rng(0)
    weights, inputs = draw.normal(size=(10, 8)), draw.normal(size=(8, 8)) @ draw.normal(size=(8, 200))
    left, right = split(weights, inputs @ inputs.T / 200).factors(3)
    outputs = weights @ inputs
    values = np.linalg.svd(outputs, compute_uv=False)
    best = np.sqrt(np.sum(values[3:] ** 2))
    assert np.linalg.norm(outputs - left @ right @ inputs) == pytest.approx(best, rel=1e-6)


def test_cp_comes_closer_with_more_components():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(6, 8, 3, padding=1).eval()
    errors = [
        output_error(layer, chain(cp_pieces(layer, rank), layer), noise(layer).samples)
        for rank in (4, 16, 48)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2


def test_the_levels_of_the_hierarchy_come_one_after_the_other_and_the_residual_helps():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(16, 24, 3, padding=1).eval()
    samples, errors = noise(layer).samples, []
    for ratios in ((0.5,), (0.5, 0.5), (0.5, 0.5, 0.25)):
        ranks = hierarchical_ranks(layer, ratios, lambda wanted, full: min(full, round(wanted)))
        assert len(ranks) == 1 + len(ratios)
        errors.append(output_error(layer, hierarchical_module(layer, ranks), samples))
    assert errors[1] >= errors[0] > errors[2]


def test_two_paths_that_compute_the_same_overlap_and_two_that_share_nothing_do_not():
    def path(weight):
        first, second = torch.nn.Conv2d(2, 2, 3, bias=False), torch.nn.Conv2d(2, 2, 1, bias=False)
        with torch.no_grad():
            first.weight.copy_(weight)
            second.weight.copy_(torch.eye(2)[:, :, None, None])
        return torch.nn.Sequential(first, second)

    one, other = torch.zeros(2, 2, 3, 3), torch.zeros(2, 2, 3, 3)
    one[0, 0], other[1, 1] = 1.0, 1.0
    same, apart = (torch.nn.Sequential(Levels(path(one), path(w))) for w in (2 * one, other))
    assert [float(found) for found in overlap(same)] == [pytest.approx(1.0)]
    assert [float(found) for found in overlap(apart)] == [pytest.approx(0.0, abs=1e-6)]


def test_the_smallest_share_for_an_error_is_found():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(24, 24, 3, padding=1).eval()
    for method in METHODS:
        found = at_error(layer, method, 0.5, noise(layer), Wishes(levels=(0.5, 0.5, 0.3)))
        assert 0.2 < found.error <= 0.5, method


def test_by_a_rule_the_other_methods_come_as_close_as_svd_does():
    torch.manual_seed(0)
    layer, wishes = torch.nn.Conv2d(24, 24, 3, padding=1).eval(), Wishes(levels=(0.5, 0.5, 0.3))
    target = by_rule(layer, "svd", "energy", 0.7, noise(layer), wishes).error
    assert target == pytest.approx(0.3**0.5, abs=0.05)
    for method in ("spatial-svd", "hlrtf"):
        assert by_rule(layer, method, "energy", 0.7, noise(layer), wishes).error <= target


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 16), st.floats(0, 70))
def test_ranks_keep_their_limits(full, least, multiple, wanted):
    rank = Wishes(least=least, multiple=multiple).rank(wanted, full)
    assert 1 <= rank <= full
    assert rank == full or (rank >= least and rank % multiple == 0 and rank >= round(wanted))


@pytest.mark.parametrize(
    ("layer", "fits"),
    [
        (torch.nn.Linear(4, 4), True),
        (torch.nn.Conv2d(4, 4, 3), True),
        (torch.nn.Conv2d(4, 4, 3, groups=2), False),
        (torch.nn.Conv2d(4, 4, 3, padding="same"), False),
        (torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), False),
        (torch.nn.Conv1d(4, 4, 3), False),
        (torch.nn.ConvTranspose2d(4, 4, 3), False),
    ],
)
def test_what_cannot_be_decomposed_is_known(layer, fits):
    assert is_decomposable(layer) == fits


def test_layers_without_a_window_have_channels_only():
    assert fitting(torch.nn.Linear(8, 8), METHODS) == ["svd"]
    assert fitting(torch.nn.Conv2d(8, 8, 1), METHODS) == ["svd"]
    assert fitting(torch.nn.Conv2d(8, 8, 3), METHODS) == list(METHODS)


def test_tucker_has_the_ranks_it_was_asked_for():
    layer = torch.nn.Conv2d(8, 12, 3).eval()
    module = chain(tucker_pieces(layer, (5, 3)), layer)
    assert [tuple(one.weight.shape) for one in module] == [(3, 8, 1, 1), (5, 3, 3, 3), (12, 5, 1, 1)]
