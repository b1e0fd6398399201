import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import BadInput
from edgekit.quantity import parse_drop, parse_latency, parse_megabytes, parse_milliseconds, parse_seconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("20ms", 20), ("1.5s", 1500), (" 800 us ", 0.8), ("800µs", 0.8), (".5 S", 500), ("2e1MS", 20)],
)
def test_a_duration_is_read_in_milliseconds(text, milliseconds):
    assert parse_milliseconds(text, option="--latency") == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10m", 600), ("10 min", 600), ("1.5h", 5400), ("2M", 120)]
)
def test_a_long_duration_is_read_in_seconds(text, seconds):
    assert parse_seconds(text, option="--sustained") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        ("64MB", 64),
        ("2mb", 2),
        ("500KB", 0.5),
        ("64MiB", 67.108864),
        ("1GB", 1000),
        ("1GiB", 1073.741824),
        ("10B", 1e-5),
    ],
)
def test_a_size_is_read_in_millions_of_bytes(text, megabytes):
    assert parse_megabytes(text, option="--size") == pytest.approx(megabytes)


@pytest.mark.parametrize(("text", "drop"), [("1%", 0.01), ("0.5 %", 0.005), ("0.5", 0.5), ("0.02", 0.02)])
def test_a_drop_is_a_share_in_percent_or_plain(text, drop):
    assert parse_drop(text, option="--max-drop") == pytest.approx(drop)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("20ms", ("latency_p90_ms", 20)),
        ("p99:40ms", ("latency_p99_ms", 40)),
        ("P50: 0.1s", ("latency_p50_ms", 100)),
    ],
)
def test_a_latency_without_a_percentile_means_p90(text, limit):
    assert parse_latency(text, option="--latency") == (limit[0], pytest.approx(limit[1]))


@pytest.mark.parametrize(
    "text",
    [
        "0ms",
        "-1ms",
        "nan ms",
        "inf s",
        "1e999s",
        "",
        "ms",
        "20",
        "20 parsecs",
        "20ms30",
        "p95:3ms",
        ":3ms",
        "p99:",
    ],
)
def test_a_latency_that_limits_nothing_is_refused_with_the_option_and_an_example(text):
    with pytest.raises(BadInput) as refusal:
        parse_latency(text, option="--latency")
    assert str(refusal.value).startswith("--latency: ")
    assert "`--latency " in str(refusal.value)


@pytest.mark.parametrize("text", ["0MB", "-1MB", "64", "64 m", "64Mbit/s", "NaN", "0%"])
def test_a_size_that_limits_nothing_is_refused(text):
    with pytest.raises(BadInput, match=r"^--memory: .*; write for example `--memory 64MB`$"):
        parse_megabytes(text, option="--memory")


@pytest.mark.parametrize("text", ["0", "0%", "-1", "-1%", "1 point", "nan", "%", "1", "100%", "2"])
def test_a_drop_that_limits_nothing_is_refused(text):
    with pytest.raises(BadInput, match=r"^--max-drop: .*; write for example `--max-drop 1%`$"):
        parse_drop(text, option="--max-drop")


@given(st.text(max_size=30))
def test_any_text_gives_a_number_above_0_or_one_line_of_refusal(text):
    for parse in (
        parse_milliseconds,
        parse_seconds,
        parse_megabytes,
        parse_drop,
        lambda t, option: parse_latency(t, option=option)[1],
    ):
        try:
            value = parse(text, option="--limit")
        except BadInput as refusal:
            line, value = str(refusal), 1.0
        else:
            line = "--limit: read"
        assert line.startswith("--limit: ")
        assert len(line.splitlines()) == 1
        assert value > 0
        assert math.isfinite(value)


@given(st.floats(min_value=1e-3, max_value=0.99))
def test_units_agree_with_each_other(number):
    assert parse_milliseconds(f"{number!r}s", option="o") == pytest.approx(
        1000 * parse_milliseconds(f"{number!r}ms", option="o")
    )
    assert parse_megabytes(f"{number!r}MiB", option="o") == pytest.approx(
        1.048576 * parse_megabytes(f"{number!r}MB", option="o")
    )
    assert parse_drop(f"{number!r}%", option="o") == pytest.approx(parse_drop(repr(number), option="o") / 100)
