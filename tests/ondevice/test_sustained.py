"""The sustained mode: where a run is steady, what it is judged by, and one for real."""

import json
import math
import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.ondevice.runner import measure as timing
from edgekit.ondevice.runner.contamination import find
from edgekit.ondevice.runner.sustained import clock_fell, judge, protocol, steady_from, window_ns, windows_of

COLD, WARM = 10.0, 13.0


def rising(cold, warm):
    """Medians of a board that slows down over the windows between the two."""
    climb = [COLD + (WARM - COLD) * number / 10 for number in range(10)]
    return [COLD] * cold + climb + [WARM] * warm


def test_a_level_run_is_steady_from_the_start():
    assert steady_from([COLD] * 60) == 0


def test_a_run_that_slows_down_is_steady_from_where_it_is_within_five_percent_of_its_end():
    medians = rising(20, 60)
    first = steady_from(medians)
    assert medians[first] > WARM * 0.95 >= medians[first - 1]


def test_a_run_that_slows_down_up_to_its_end_never_is_steady():
    assert steady_from([COLD * 1.01**number for number in range(60)]) is None
    assert steady_from(rising(60, 15)) is None


def test_a_clock_that_swings_to_and_fro_never_is_steady():
    assert steady_from(([10.0] * 4 + [13.0] * 4) * 10) is None


def test_one_disturbed_window_does_not_hide_that_the_rest_is_steady():
    medians = [COLD] * 60
    for place in (5, 40, 59):
        assert steady_from([*medians[:place], 90.0, *medians[place + 1 :]]) == 0
    assert steady_from([90.0, *medians[1:]]) == 1
    assert steady_from([*medians[:20], 90.0, 90.0, *medians[22:]]) == 22


def test_a_run_of_too_few_windows_is_not_called_steady():
    assert steady_from([COLD] * 5) is None
    assert steady_from([COLD] * 6) == 0


MEDIANS = st.lists(st.floats(min_value=0.001, max_value=1e5), min_size=6, max_size=130)


@given(MEDIANS)
def test_what_is_called_steady_holds_the_last_third_and_lies_in_the_band(medians):
    first = steady_from(medians)
    if first is None:
        return
    third = len(medians) // 3
    assert 0 <= first <= len(medians) - third
    # Smoothing hides single windows only: no three in a row lie outside on one side.
    smooth = [statistics.median(medians[i - 1 : i + 2]) for i in range(first + 1, len(medians) - 1)]
    low, high = min(smooth, default=1.0), max(smooth, default=1.0)
    assert high <= low * (1.05 / 0.95) * (1 + 1e-9)


@given(MEDIANS, st.sampled_from([0.5, 2.0, 1024.0]))
def test_a_slower_machine_of_the_same_course_is_steady_from_the_same_window(medians, factor):
    assert steady_from([value * factor for value in medians]) == steady_from(medians)


@given(MEDIANS, st.integers(0, 200))
def test_what_came_before_moves_the_steady_part_but_does_not_make_it(medians, more):
    level = [statistics.median(medians)] * (2 * len(medians) + more + 6)
    first = steady_from([*medians, *level])
    assert first is not None
    assert first <= len(medians) + 1


@given(st.floats(1, 86_400), st.floats(1e-6, 100))
def test_windows_are_six_to_120_and_long_enough(seconds, call):
    width = window_ns(seconds, call)
    number = seconds * 1e9 / width
    assert 5.99 <= number <= 120.001
    assert number <= 6 or width >= 0.5e9 * 0.99
    assert number <= 6 or width >= 10 * call * 1e9 * 0.99


def measured(*courses, width_s=10.0, runs=20):
    """As `measure` gives it: in each window so many runs of that latency, milliseconds."""
    starts, samples = [], []
    for number, latency in enumerate(courses):
        for run in range(runs):
            starts.append(int((number + run / runs) * width_s * 1e9))
            samples.append(latency)
    windows = {number: (runs, latency) for number, latency in enumerate(courses)}
    return {"starts_ns": starts, "samples_ms": samples, "windows": windows}


def state(at_s, temperature=None, clock=None, throttled=None):
    return {
        "clock_s": 1000.0 + at_s,
        "temperature_c": temperature,
        "clock_mhz": clock,
        "throttled": throttled,
        "governor": "ondemand",
    }


def judged(*courses, states=(), runs=20):
    found = measured(*courses, runs=runs)
    windows = windows_of(found, 10**10, states, 1000.0)
    return judge(found, windows, 10.0 * len(courses)), windows


def test_a_run_is_judged_by_its_steady_part_and_compared_with_its_first_minute():
    found, windows = judged(*rising(10, 40))
    assert found["steady"]
    assert found["samples_ms"] == [w for w in rising(10, 40) if w > 12.35 for _ in range(20)]
    assert found["first_p50_ms"] == COLD
    assert found["first_seconds"] == 60
    assert found["slowdown"] == pytest.approx(WARM / COLD)
    assert found["judged_from_s"] == 10 * windows.index(next(w for w in windows if w["p50_ms"] > 12.35))


def test_a_run_that_never_is_steady_is_judged_by_its_last_third():
    courses = [COLD * 1.02**number for number in range(30)]
    found, _ = judged(*courses)
    assert not found["steady"]
    assert found["judged_from_s"] == 200
    assert found["samples_ms"] == [w for w in courses[20:] for _ in range(20)]


@pytest.mark.parametrize("windows", [1, 2, 3, 7])
def test_a_model_so_slow_that_windows_hold_one_run_is_judged_too(windows):
    found, _ = judged(*[COLD] * windows, runs=1)
    assert found["samples_ms"]
    assert found["slowdown"] == 1.0


def test_each_window_knows_how_the_machine_was_at_its_end():
    states = [state(3, 40.0, 1800.0), state(8, 41.0, 1790.0), state(12, 55.0, 1500.0, "0x4")]
    _, windows = judged(1.0, 2.0, 3.0, states=states)
    assert [one["temperature_c"] for one in windows] == [41.0, 55.0, None]
    assert [one["throttled"] for one in windows] == [None, "0x4", None]
    assert windows[1] == {
        "start_s": 10.0,
        "runs": 20,
        "p50_ms": 2.0,
        "p90_ms": 2.0,
        "max_ms": 2.0,
        "temperature_c": 55.0,
        "clock_mhz": 1500.0,
        "throttled": "0x4",
        "governor": "ondemand",
    }


def test_a_clock_that_is_lower_in_the_steady_part_is_said():
    states = [state(10 * number + 5, 60.0, 1800.0 if number < 8 else 1500.0) for number in range(40)]
    _, windows = judged(*[COLD] * 40, states=states)
    assert clock_fell(windows, 100.0) == "the clock fell from 1800 to 1500 MHz"
    momentary = [state(10 * number + 5, 60.0, 1500.0 if number == 30 else 1800.0) for number in range(40)]
    _, windows = judged(*[COLD] * 40, states=momentary)
    assert clock_fell(windows, 100.0) is None
    assert clock_fell([{**one, "clock_mhz": None} for one in windows], 100.0) is None


def test_heat_is_the_answer_of_a_sustained_run_and_no_doubt_about_it():
    snapshots = [
        {**state(at, 80.0, clock, bits), "load_average": 0.1, "cpu_seconds": None}
        for at, clock, bits in ((0, 1800.0, "0x0"), (600, 1500.0, "0x50005"))
    ]
    used = {"wall_seconds": 600.0, "cpu_seconds": 600.0, "involuntary_switches": 30.0}
    latency = {"p50_ms": 10.0, "p90_ms": 10.5}
    assert len(find(snapshots, used, latency, threads=1, cores=4)) == 2
    assert find(snapshots, used, latency, threads=1, cores=4, sustained=True) == [
        "the firmware reports: under-voltage, under-voltage has occurred"
    ]


def test_runs_are_counted_in_their_windows_however_few_are_kept(monkeypatch):
    monkeypatch.setattr(timing, "MOST_SAMPLES", 50)
    now = [0]

    def call(feed):
        now[0] += 1_000_000 if now[0] != 250_000_000 else 30_000_000

    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0] / 1e9)
    found = timing.measure(call, [0], protocol(1.0), lambda *_: None, window_ns=100_000_000)
    assert len(found["samples_ms"]) == len(found["starts_ns"]) == 50
    assert found["starts_ns"] == sorted(found["starts_ns"])
    assert [found["windows"][number][0] for number in range(10)] == [100, 100, 71, *[100] * 7]
    assert [number for number, (_, slowest) in found["windows"].items() if slowest == 30.0] == [2]
    assert found["max_of_all_runs_ms"] == 30.0


def test_what_is_kept_of_a_part_is_a_fair_sample_of_it(monkeypatch):
    monkeypatch.setattr(timing, "MOST_SAMPLES", 1000)
    now = [0]

    def call(feed):
        now[0] += 1_000_000

    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0] / 1e9)
    found = timing.measure(call, [0], protocol(20.0), lambda *_: None, window_ns=10**9)
    in_window = [sum(start // 10**9 == number for start in found["starts_ns"]) for number in range(20)]
    assert all(20 < count < 85 for count in in_window)  # 50 are expected, five deviations are 35


@pytest.fixture(scope="module")
def record(made_bundles):
    """A sustained run of six seconds for real."""
    command = [
        sys.executable,
        made_bundles / "tiny" / "run.py",
        "--bench",
        "--sustained",
        "6",
        "--threads",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "of 6 s" in done.stderr
    return json.loads(done.stdout, parse_constant=pytest.fail)


def test_a_sustained_run_lasts_as_long_as_asked_and_says_what_became_of_it(record):
    assert record["schema"] == "edgekit.bench/1"
    assert record["protocol"]["mode"] == "sustained"
    assert 6 <= record["protocol"]["seconds"] < 6.5
    found = record["sustained"]
    assert found["asked_seconds"] == 6
    assert 6 <= len(found["windows"]) <= 13
    assert sum(window["runs"] for window in found["windows"]) == record["protocol"]["runs"]
    assert max(window["max_ms"] for window in found["windows"]) == record["latency"]["max_of_all_runs_ms"]
    assert [window["start_s"] for window in found["windows"]] == pytest.approx(
        [0.5 * number for number in range(len(found["windows"]))]
    )
    assert found["slowdown"] == pytest.approx(record["latency"]["p50_ms"] / found["first_p50_ms"], rel=1e-4)


def test_its_latency_is_that_of_the_part_to_be_judged(record):
    found, samples = record["sustained"], record["samples_ms"]
    assert record["latency"]["n"] == len(samples) <= 65_536
    assert statistics.median(samples) == pytest.approx(record["latency"]["p50_ms"])
    judged_windows = [one for one in found["windows"] if one["start_s"] >= found["judged_from_s"] - 1e-9]
    assert min(one["p50_ms"] for one in judged_windows) <= record["latency"]["p50_ms"] + 1e-6
    assert max(one["p50_ms"] for one in judged_windows) >= record["latency"]["p50_ms"] - 1e-6
    said = "steady part" if found["steady"] else "last third"
    assert said in record["notes"][0]
    assert math.isclose(found["judged_from_s"], 4.0, abs_tol=0.01) or found["steady"]
    assert len(record["snapshots"]) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--check", "--sustained", "5"], "--sustained is an option of --bench"),
        (["--bench", "--quick", "--sustained", "5"], "not allowed with"),
        (["--bench", "--sustained", "0"], "0 is not between 1 and 86400 s"),
        (["--bench", "--sustained", "nan"], "nan is not between"),
        (["--bench", "--sustained", "10m"], "invalid"),
    ],
)
def test_a_length_that_is_none_is_refused(made_bundles, options, words):
    command = [sys.executable, made_bundles / "tiny" / "run.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert words in done.stderr
