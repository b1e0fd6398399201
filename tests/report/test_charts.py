import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report.bench_charts import histogram, timeline
from edgekit.report.bench_sustained import BLOCKS, latency_over_time, spark, state_over_time
from edgekit.report.charts import Point, budget_bar, ratio_bar, scatter
from edgekit.report.scale import fit, number_text, ticks

ANY = st.none() | st.floats()
NUMBERS = re.compile(r'="(-?[\d.]+(?:e[+-]?\d+)?)"')


def assert_inside(drawing):
    """Every number in an SVG is finite, every tag closed; coordinates lie on the canvas."""
    assert drawing.startswith("<svg")
    assert drawing.endswith("</svg>")
    assert "nan" not in drawing.replace("Unknown", "")
    assert not re.search(r'"-?inf"', drawing)
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', drawing).groups())
    for name, limit in (
        ("x", width),
        ("cx", width),
        ("x1", width),
        ("x2", width),
        ("y", height),
        ("cy", height),
    ):
        for value in re.findall(rf' {name}="(-?[\d.]+)"', drawing):
            assert -0.06 <= float(value) <= limit


@given(ANY, st.floats(), ANY, ANY, st.sampled_from(["MET", "NOT MET", "UNPROVEN", "PREDICTED"]))
def test_a_budget_bar_is_drawn_whatever_the_figures(value, limit, low, high, status):
    assert_inside(budget_bar(value, limit, low=low, high=high, status=status, label="label", key="size"))


@given(ANY)
def test_a_ratio_bar_is_drawn_whatever_the_ratio(ratio):
    assert_inside(ratio_bar(ratio, "label"))


POINTS = st.lists(
    st.builds(Point, x=ANY, y=ANY, mark=st.just("1"), name=st.text(), x_low=ANY, x_high=ANY), max_size=5
)


@given(POINTS, ANY, ANY)
def test_a_scatter_chart_is_drawn_whatever_the_points(points, x_limit, y_limit):
    assert_inside(scatter(points, label="l", x_label="x", y_label="y", x_limit=x_limit, y_limit=y_limit))


@given(st.lists(st.floats(), max_size=80), ANY)
def test_a_histogram_and_a_timeline_are_drawn_whatever_the_samples(samples, mark):
    assert_inside(histogram(samples, {"p50": mark}, label="l"))
    assert_inside(timeline(samples, label="l"))


@given(st.lists(st.floats(min_value=0.1, max_value=100), min_size=1, max_size=300))
def test_a_histogram_counts_every_sample_once(samples):
    tips = re.findall(r": (\d+) runs<", histogram(samples, {}, label="l"))
    assert sum(map(int, tips)) == len(samples)


def test_stragglers_are_put_into_the_last_column_and_said():
    samples = [1.0 + 0.001 * number for number in range(500)] + [50.0, 60.0]
    drawing = histogram(samples, {"p50": 1.25, "p99": 55.0}, label="l")
    assert "2 slower, up to 60 ms" in drawing
    assert "p99 55 ms →" in drawing
    assert "p50 1.25 ms" in drawing
    assert "up to 60 ms" in timeline(samples, label="l")
    assert "up to" not in timeline(samples[:500], label="l")


WINDOWS = st.lists(
    st.fixed_dictionaries({"start_s": st.floats(), "p50_ms": ANY, "p90_ms": ANY, "temperature_c": ANY}),
    max_size=40,
)


@given(WINDOWS, st.floats(), st.booleans())
def test_a_sustained_run_is_drawn_whatever_its_windows(windows, begin, steady):
    found = {"windows": windows, "judged_from_s": begin, "steady": steady}
    assert_inside(latency_over_time(found, label="l"))
    temperature = state_over_time(found, "temperature_c", name="°C", label="l")
    if temperature:
        assert_inside(temperature)


def points(drawing, class_):
    place = re.search(rf'points="([^"]*)" class="{class_}"', drawing)
    return [tuple(map(float, pair.split(","))) for pair in place.group(1).split()]


def test_a_sustained_runs_picture_rises_where_the_latency_does_and_shades_what_is_judged():
    windows = [
        {"start_s": 5.0 * number, "p50_ms": latency, "p90_ms": latency + 2, "temperature_c": None}
        for number, latency in enumerate([10.0] * 60 + [20.0] * 60)
    ]
    found = {"windows": windows, "judged_from_s": 300.0, "steady": True}
    drawing = latency_over_time(found, label="l")
    trace = points(drawing, "trace")
    assert len(trace) == 120
    assert trace[0][1] == trace[59][1] > trace[60][1] == trace[119][1]
    assert len(points(drawing, "band")) == 240
    assert "time, min" in drawing
    shaded = float(re.search(r'<rect x="([\d.]+)"[^>]* class="region"', drawing).group(1))
    assert shaded == trace[60][0]
    assert ">steady<" in drawing
    assert state_over_time(found, "temperature_c", name="°C", label="l") == ""
    short = {**found, "windows": windows[:20], "judged_from_s": 50.0, "steady": False}
    assert "time, s" in latency_over_time(short, label="l")
    assert ">judged, though not steady<" in latency_over_time(short, label="l")


def test_blocks_show_the_course_and_do_not_make_mountains_of_noise():
    assert spark([1.0, 2.0, 3.0]) == "▁▄█" or spark([1.0, 2.0, 3.0]) == "▁▅█"
    assert set(spark([10.0, 10.01, 10.0, 10.02] * 30)) == {"▁"}
    assert len(spark([float(number) for number in range(1000)])) == 48


@given(st.lists(st.floats(min_value=-1e12, max_value=1e12), min_size=1, max_size=200))
def test_any_course_becomes_blocks(values):
    blocks = spark(values)
    assert len(blocks) == min(48, len(values))
    assert set(blocks) <= set(BLOCKS)


def test_charts_without_data_say_so():
    assert "there are no samples" in histogram([], {}, label="l")
    assert "there are no samples" in timeline([math.nan], label="l")
    assert "no candidate has both figures" in scatter([], label="l", x_label="x", y_label="y")


def test_an_undecided_bar_is_hatched_and_one_beyond_its_end_has_an_arrow():
    drawing = budget_bar(12.0, 10.0, low=8.0, high=40.0, status="UNPROVEN", label="l", key="size")
    assert "fill:url(#hatch-size)" in drawing
    assert 'class="beyond"' in drawing


def test_names_in_a_chart_are_escaped():
    point = Point(x=1.0, y=1.0, mark="1", name="<b>&\x1b", shipped=True)
    drawing = scatter([point], label="<i>", x_label="x", y_label="y")
    assert "&lt;b&gt;&amp;\ufffd" in drawing
    assert 'aria-label="&lt;i&gt;"' in drawing


@given(st.lists(st.floats(min_value=-1e12, max_value=1e12), max_size=5))
def test_ticks_are_few_and_lie_on_the_scale(values):
    scale = fit(values, 0, 100)
    found = ticks(scale)
    assert len(found) <= 7
    assert all(-0.001 <= scale.at(value) <= 100.001 for value in found)
    assert [scale.at(value) for value in found] == sorted(scale.at(value) for value in found)


@pytest.mark.parametrize(
    ("value", "step", "text"), [(0.0, 1, "0"), (0.5, 0.5, "0.5"), (20, 10, "20"), (1e9, 1e8, "1e+09")]
)
def test_ticks_have_as_many_digits_as_their_step_asks_for(value, step, text):
    assert number_text(value, step) == text
