import math

import numpy as np
import pytest

from edgekit.ondevice.runner.check import compare, signal_to_noise_db

ONES = np.ones(100, np.float32)


@pytest.mark.parametrize(
    ("expected", "got", "decibel"),
    [
        (ONES, ONES, math.inf),
        (ONES, ONES * 1.1, 20.0),
        (ONES, ONES * 0, 0.0),
        (ONES * 0, ONES * 0, math.inf),
        (ONES * 0, ONES * 1e-7, math.inf),
        (ONES * 0, ONES * 1e-3, -math.inf),
        (np.asarray([], np.float32), np.asarray([], np.float32), math.inf),
        (np.asarray([3, 4]), np.asarray([3, 4]), math.inf),
        (np.asarray(True), np.asarray(False), 0.0),
    ],
)
def test_signal_to_noise(expected, got, decibel):
    assert signal_to_noise_db(expected, got) == pytest.approx(decibel, abs=0.01)


def test_equal_outputs_pass_and_the_lowest_ratio_is_told():
    assert compare([ONES, ONES], [ONES, ONES], ["a", "b"], 50) == (math.inf, None)
    lowest, wrong = compare([ONES, ONES], [ONES, ONES * 1.01], ["a", "b"], 30)
    assert lowest == pytest.approx(40, abs=0.1)
    assert wrong is None


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        ([ONES], [ONES * 1.1], "output `a` has signal-to-noise 20.0 dB, at least 50 is needed"),
        ([ONES], [ONES * np.nan], "output `a` holds NaN or infinite values"),
        ([ONES * np.nan], [ONES], "output `a` is NaN or infinite in the golden sample itself"),
        ([ONES * np.nan], [ONES * np.nan], "golden sample itself"),
        ([ONES], [ONES.astype(np.float64)], "output `a` is float64[100], not float32[100]"),
        ([ONES], [ONES[:1]], "output `a` is float32[1], not float32[100]"),
        ([ONES], [], "0 outputs, not 1"),
        ([np.asarray(["x"])], [np.asarray(["x"])], "output `a` is <U1, which holds no numbers"),
    ],
)
def test_what_is_wrong_is_said_in_words(expected, got, words):
    assert words in compare(expected, got, ["a"], 50)[1]
