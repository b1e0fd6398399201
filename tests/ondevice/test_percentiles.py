from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.ondevice.runner.percentiles import (
    binomial_cdf,
    early_stopping,
    least_samples,
    over_latency_allowance,
    plain_percentile,
    summarize,
)


@pytest.mark.parametrize(
    ("n", "allowance"),
    [(63, 0), (64, 1), (100, 3), (200, 10), (500, 34), (1024, 80), (5000, 450), (24_576, 2348)],
)
def test_mlperfs_table_for_the_90th_percentile(n, allowance):
    assert over_latency_allowance(n, 0.90) == allowance


@pytest.mark.parametrize(("percentile", "least"), [(0.90, 64), (0.99, 662)])
def test_a_percentile_needs_so_many_runs_at_least(percentile, least):
    assert least_samples(percentile) == least
    samples = [float(number) for number in range(least)]
    assert early_stopping(samples[:-1], percentile) is None
    assert early_stopping(samples, percentile) == least - 1


def test_100_runs_report_the_third_highest_and_1024_the_80th():
    assert early_stopping(list(map(float, range(1, 101))), 0.90) == 98
    assert early_stopping(list(map(float, range(1, 1025))), 0.90) == 1024 - 79


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 300), share=st.integers(0, 100), percent=st.sampled_from([1, 5, 10, 50]))
def test_the_binomial_distribution_agrees_with_exact_arithmetic(n, share, percent):
    k, chance = n * share // 100, Fraction(percent, 100)
    exact = sum(comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(k + 1))
    assert binomial_cdf(k, n, percent / 100) == pytest.approx(float(exact), rel=1e-9, abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 3000), percentile=st.sampled_from([0.90, 0.95, 0.99]))
def test_the_allowance_is_the_largest_that_the_rule_permits(n, percentile):
    allowance = over_latency_allowance(n, percentile)
    if allowance:
        assert binomial_cdf(allowance, n, 1 - percentile) <= 0.01
    if n:
        assert binomial_cdf(allowance + 1, n, 1 - percentile) > 0.01


@settings(max_examples=100, deadline=None)
@given(samples=st.lists(st.floats(0.01, 1e4), min_size=1, max_size=900))
def test_a_reported_percentile_is_a_sample_and_never_below_the_plain_one(samples):
    found, ordered = summarize(samples), sorted(samples)
    assert found["n"] == len(samples)
    assert found["min_ms"] <= found["p50_ms"] <= found["max_ms"]
    for name, percentile in (("p90", 0.90), ("p99", 0.99)):
        reported = found[f"{name}_ms"]
        assert (reported is None) == (name in found["not_given"])
        if reported is not None:
            assert reported in ordered
            assert reported >= plain_percentile(ordered, percentile) or reported == ordered[-1]


def test_a_percentile_that_is_not_given_says_how_many_runs_it_needs():
    assert summarize([1.0] * 100)["not_given"] == {
        "p99": "100 runs cannot carry it, at least 662 are needed",
    }


def test_no_samples_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="no samples"):
        summarize([])
