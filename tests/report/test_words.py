import math

import pytest
import records

from edgekit.report.words import (
    decibel_text,
    interval_text,
    latency_field,
    limit_label,
    listed,
    quality_name,
    quality_text,
    ratio_text,
    score_text,
    took,
    value_text,
)
from edgekit.result import Quality


def quality(kind, score):
    return Quality(kind=kind, score=score, drop=None, samples=7)


def test_an_interval_says_its_unit_once_where_both_ends_have_the_same():
    assert interval_text("size_mb", records.predicted(1.0, 0.5, 2.0)) == "0.5 to 2 MB"
    assert interval_text("size_mb", records.measured(1.0)) == ""
    assert interval_text("size_mb", records.predicted(1.0, 0.5, math.inf)) == ""
    assert interval_text("size_mb", None) == ""


def test_an_unknown_figure_is_unknown():
    assert value_text("size_mb", None) == "unknown"
    assert value_text("size_mb", records.measured(math.nan)) == "unknown"


def test_only_what_evaluate_measured_is_called_accuracy():
    assert limit_label("drop", "accuracy") == "accuracy drop"
    assert limit_label("drop", "top-1 agreement") == "fidelity drop"
    assert limit_label("drop", "none") == "quality drop"
    assert limit_label("size_mb", "accuracy") == "artifact size"
    assert quality_name(quality("top-1 agreement", 1.0)) == "fidelity (top-1 agreement with the original)"
    assert quality_name(None) == "quality"


@pytest.mark.parametrize(
    ("kind", "score", "text"),
    [
        ("accuracy", 0.98444, "98.44 %"),
        ("accuracy", 31.5, "31.5"),
        ("signal-to-noise", 41.23, "41.2 dB"),
        ("signal-to-noise", math.inf, "equal to the original"),
        ("signal-to-noise", -math.inf, "unknown"),
        ("accuracy", math.nan, "unknown"),
        ("none", None, "unknown"),
    ],
)
def test_scores_are_written_by_their_kind(kind, score, text):
    assert score_text(quality(kind, score)) == text


def test_a_quality_says_on_how_many_samples():
    assert quality_text(quality("accuracy", 0.5)) == "accuracy 50.00 % on 7 samples"
    assert quality_text(quality("none", None)).startswith("quality unknown")


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (2.0, "2.00x faster"),
        (0.5, "2.00x slower"),
        (1.001, "the same"),
        (0.0, "unknown"),
        (math.inf, "unknown"),
    ],
)
def test_ratios_are_said_in_words(ratio, text):
    assert ratio_text(ratio, "faster", "slower") == text


def test_decibels_and_durations_have_words_for_the_extremes():
    assert [decibel_text(x) for x in (41.26, math.inf, -math.inf, math.nan)] == [
        "41.3 dB",
        "equal",
        "no signal",
        "unknown",
    ]
    assert [took(x) for x in (3.14, 200.0, math.nan, -1.0)] == ["3.1 s", "3 min 20 s", "unknown", "unknown"]


def test_lists_are_joined_as_people_do():
    assert [listed(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_the_latency_shown_is_that_of_the_budget_else_the_first_known():
    cost, none = records.Cost(latency_p99_ms=records.measured(1.0)), records.Cost()
    assert latency_field(records.BUDGET, [cost]) == "latency_p90_ms"
    assert latency_field(none, [none, cost]) == "latency_p99_ms"
    assert latency_field(none, []) == "latency_p50_ms"
