import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.cost import (
    LABELS,
    Cost,
    Figure,
    cost_from_dict,
    judge,
    outcome,
    over,
    show_figure,
    show_value,
    unproven,
)


def figure(value, how="measured", low=None, high=None):
    return Figure(value=value, how=how, source="test", low=low, high=high)


def limit(value):
    return Figure(value=value, how="limit", source="test")


def verdict(cost_figure, most=20.0, name="latency_p90_ms"):
    [found] = judge(Cost(**{name: cost_figure}), Cost(**{name: limit(most)}))
    return found


def test_a_measurement_at_its_limit_is_met():
    found = verdict(figure(20.0))
    assert (found.status, found.excess) == ("MET", 0.0)
    assert found.reason == "latency p90 20 ms measured, limit 20 ms"


def test_a_measurement_above_its_limit_is_not_met_by_that_factor():
    found = verdict(figure(30.0))
    assert (found.status, found.excess) == ("NOT MET", 1.5)


def test_a_prediction_whose_interval_lies_inside_the_limit_is_predicted():
    assert verdict(figure(12.0, "predicted", 8.0, 18.0)).status == "PREDICTED"


def test_a_prediction_without_an_interval_never_counts_as_met():
    assert verdict(figure(12.0, "predicted")).status == "PREDICTED"


def test_a_prediction_whose_interval_lies_above_the_limit_is_not_met():
    assert verdict(figure(40.0, "predicted", 21.0, 60.0)).status == "NOT MET"


@pytest.mark.parametrize("value", [15.0, 25.0])
def test_a_prediction_whose_interval_holds_the_limit_is_unproven_and_says_what_to_do(value):
    found = verdict(figure(value, "predicted", 10.0, 30.0))
    assert found.status == "UNPROVEN"
    assert found.excess >= 1
    assert found.reason.endswith("the limit 20 ms lies inside the interval, measure on the device")


@pytest.mark.parametrize(
    "unknown", [None, figure(math.nan), figure(math.nan, "predicted", math.nan, math.nan)]
)
def test_what_nobody_knows_is_unproven(unknown):
    found = verdict(unknown)
    assert found.status == "UNPROVEN"
    assert found.reason == "nothing was measured or predicted for latency p90, limit 20 ms"


def test_time_under_emulation_proves_nothing_about_latency():
    assert verdict(figure(1.0, "emulated")).status == "UNPROVEN"


def test_memory_under_emulation_is_real():
    assert verdict(figure(10.0, "emulated"), name="peak_memory_mb").status == "MET"


def test_an_infinite_figure_misses_its_limit_and_is_said_in_words():
    found = verdict(figure(math.inf), 0.01, "drop")
    assert (found.status, found.excess) == ("NOT MET", math.inf)
    assert found.reason == "quality drop infinite measured, limit 1.00 %"


def test_a_limit_of_zero_is_missed_by_an_infinite_factor():
    assert verdict(figure(0.5), 0.0, "drop").excess == math.inf


def test_verdicts_come_in_the_order_of_the_fields_and_only_for_named_limits():
    cost = Cost(size_mb=figure(1.0), drop=figure(0.5), latency_p50_ms=figure(3.0))
    budget = Cost(drop=limit(0.01), size_mb=limit(2.0), peak_memory_mb=limit(64.0))
    assert [(v.name, v.status) for v in judge(cost, budget)] == [
        ("peak_memory_mb", "UNPROVEN"),
        ("size_mb", "MET"),
        ("drop", "NOT MET"),
    ]
    assert [v.name for v in over(cost, budget)] == ["drop"]
    assert [v.name for v in unproven(cost, budget)] == ["peak_memory_mb"]


def test_the_outcome_is_the_worst_verdict():
    met, missed = verdict(figure(1.0)), verdict(figure(30.0))
    predicted, open_ = verdict(figure(1.0, "predicted")), verdict(None)
    assert outcome([met, predicted, open_, missed]) == "NOT MET"
    assert outcome([met, predicted, open_]) == "UNPROVEN"
    assert outcome([predicted, met]) == "PREDICTED"
    assert outcome([met]) == "MET"
    assert outcome([]) == "MET"


NUMBERS = st.floats(min_value=0, max_value=1e6) | st.just(math.inf) | st.just(math.nan)


@st.composite
def figures(draw):
    value = draw(NUMBERS)
    how = draw(st.sampled_from(["measured", "emulated", "predicted"]))
    if how != "predicted" or draw(st.booleans()):
        return figure(value, how)
    return figure(value, how, value * draw(st.floats(0, 1)), value * draw(st.floats(1, 10)))


COSTS = st.dictionaries(st.sampled_from(list(LABELS)), figures()).map(lambda known: Cost(**known))
BUDGETS = st.dictionaries(
    st.sampled_from(list(LABELS)), st.floats(min_value=0, max_value=1e6).map(limit), min_size=1
).map(lambda known: Cost(**known))


@given(COSTS, BUDGETS)
def test_an_outcome_is_met_only_when_every_limit_was_measured_and_kept(cost, budget):
    found = outcome(judge(cost, budget))
    for name, most in budget.known():
        known = getattr(cost, name)
        kept = known is not None and known.value <= most.value
        real = kept and (known.how == "measured" or (known.how == "emulated" and "latency" not in name))
        if not real:
            assert found != "MET"
    if found == "NOT MET":
        assert over(cost, budget)


@given(COSTS, BUDGETS)
def test_every_verdict_is_one_readable_line(cost, budget):
    for found in judge(cost, budget):
        assert found.reason.isprintable()
        assert "nan" not in found.reason
        assert "inf " not in found.reason
        assert found.excess >= 0


@given(COSTS)
def test_a_cost_reads_back_what_it_wrote(cost):
    assert repr(cost_from_dict(cost.as_dict())) == repr(cost)


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError):
        cost_from_dict({"energy": {"value": 1.0, "how": "measured", "source": ""}})


def test_joined_costs_keep_what_the_later_one_does_not_know():
    joined = Cost(size_mb=figure(1.0), drop=figure(0.1)) | Cost(drop=figure(0.2))
    assert joined == Cost(size_mb=figure(1.0), drop=figure(0.2))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_p90_ms", 12.345, "12.3 ms"),
        ("latency_p90_ms", 123.4, "123 ms"),
        ("latency_p90_ms", 0.00719, "7.19 µs"),
        ("size_mb", 0.3, "0.3 MB"),
        ("size_mb", 0.031, "31 KB"),
        ("size_mb", 0.0, "0 MB"),
        ("size_mb", 1e9, "1e+09 MB"),
        ("drop", 0.005, "0.50 %"),
        ("drop", math.inf, "infinite"),
        ("drop", math.nan, "unknown"),
    ],
)
def test_values_are_written_as_people_write_them(name, value, text):
    assert show_value(name, value) == text


def test_a_prediction_is_shown_with_its_interval():
    assert show_figure("size_mb", figure(1.0, "predicted", 0.5, 2.0)) == "1 MB (0.5 MB to 2 MB)"
