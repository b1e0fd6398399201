import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.compress.low_rank.ranks import rank_for, vbmf_rank

VALUES = st.lists(st.floats(0.001, 100), min_size=1, max_size=40).map(
    lambda found: np.array(sorted(found, reverse=True))
)


@given(VALUES, st.floats(0.01, 1))
def test_energy_keeps_at_least_its_share_of_the_squares_and_no_value_more_than_needed(values, amount):
    rank = rank_for(values, "energy", amount, (40, 40))
    kept = np.cumsum(values**2) / np.sum(values**2)
    assert kept[rank - 1] >= amount - 1e-9
    assert rank == 1 or kept[rank - 2] < amount


@given(VALUES, st.floats(0.01, 1))
def test_the_nuclear_norm_asks_for_at_least_the_rank_of_the_energy(values, amount):
    assert rank_for(values, "nuclear", amount, (40, 40)) >= rank_for(values, "energy", amount, (40, 40))


@given(VALUES, st.floats(0.01, 1))
def test_a_ratio_is_a_share_of_the_full_rank(values, amount):
    assert rank_for(values, "ratio", amount, (40, 40)) == max(1, round(amount * len(values)))


def test_a_matrix_of_zeros_keeps_one_rank():
    assert {rank_for(np.zeros(5), rule, 0.9, (5, 7)) for rule in ("energy", "nuclear", "vbmf")} == {1}


@pytest.mark.parametrize("rank", [1, 3, 10])
@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (80, 80)])
def test_the_analytic_rank_is_that_of_the_signal_under_the_noise(rank, shape):
    draw = np.random.default_rng(rank)
    signal = draw.normal(size=(shape[0], rank)) @ draw.normal(size=(rank, shape[1]))
    noisy = signal + 0.3 * draw.normal(size=shape)
    assert vbmf_rank(np.linalg.svd(noisy, compute_uv=False), shape) == rank


def test_noise_alone_has_no_rank():
    noise = np.random.default_rng(0).normal(size=(60, 200))
    assert vbmf_rank(np.linalg.svd(noise, compute_uv=False), (60, 200)) == 0
