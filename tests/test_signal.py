import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.signal import snr_db


def test_a_tenth_of_the_amplitude_is_20_db():
    assert snr_db([np.ones(4)], [np.full(4, 1.1)]) == pytest.approx(20)


def test_equal_arrays_are_infinitely_close_even_when_all_are_zero():
    assert snr_db([np.zeros(3)], [np.zeros(3)]) == math.inf
    assert snr_db([np.arange(3)], [np.arange(3)]) == math.inf
    assert snr_db([], []) == math.inf


def test_anything_where_nothing_should_be_is_infinitely_far():
    assert snr_db([np.zeros(3)], [np.array([0, 0, 1e-9])]) == -math.inf


def test_a_nan_that_should_not_be_is_infinitely_far():
    assert snr_db([np.ones(2)], [np.array([1, np.nan])]) == -math.inf


def test_infinite_values_that_agree_do_not_count():
    masked = np.array([1.0, -np.inf])
    assert snr_db([masked], [np.array([1.1, -np.inf])]) == pytest.approx(20)


def test_integers_and_booleans_are_compared_as_numbers():
    assert snr_db([np.array([True, False])], [np.array([True, True])]) == pytest.approx(0)
    assert snr_db([np.array([0], np.uint8)], [np.array([255], np.uint8)]) == -math.inf


@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1))
def test_the_ratio_does_not_depend_on_the_unit(unit, noise):
    wanted, found = np.ones(5), np.ones(5) + noise
    assert snr_db([wanted * unit], [found * unit]) == pytest.approx(snr_db([wanted], [found]), abs=1e-6)
