import pytest

from edgekit.ondevice.runner import measure as protocol
from edgekit.ondevice.runner.measure import is_done, is_steady, measure, warm_up


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the timed call moves."""

    class Clock:
        now = 0.0
        calls: list[object]

        def call_taking(self, *seconds):
            """A function whose calls take these times, the last one for ever."""
            self.calls = []

            def call(feed):
                self.now += seconds[min(len(self.calls), len(seconds) - 1)]
                self.calls.append(feed)

            return call

    clock = Clock()
    monkeypatch.setattr(protocol.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(protocol.time, "perf_counter_ns", lambda: round(clock.now * 1e9))
    return clock


def no_tick(stage, runs, seconds):
    pass


def run(clock, mode, *seconds):
    call = clock.call_taking(*seconds)
    warm = warm_up(call, [0, 1], protocol.WARM_UPS[mode], no_tick)
    return warm, measure(call, [0, 1], protocol.PROTOCOLS[mode], no_tick)


def test_a_quick_run_takes_at_most_nine_seconds_however_slow_the_model_is(clock):
    run(clock, "quick", 0.09)
    assert clock.now <= 9.2


def test_a_quick_run_of_a_fast_model_takes_two_and_a_half_seconds(clock):
    warm, measured = run(clock, "quick", 0.001)
    assert warm == {"runs": 500, "seconds": pytest.approx(0.5, abs=0.01), "steady": True}
    assert measured["runs"] >= 1024
    assert measured["seconds"] == pytest.approx(2.0, abs=0.01)


def test_a_standard_run_takes_a_minute_and_1024_runs(clock):
    assert run(clock, "standard", 0.001)[1]["seconds"] == pytest.approx(60, abs=0.1)
    assert run(clock, "standard", 0.1)[1]["runs"] == 1024


def test_a_strict_run_takes_ten_minutes(clock):
    assert run(clock, "strict", 0.05)[1]["seconds"] == pytest.approx(600, abs=0.1)


def test_a_model_of_half_a_minute_a_call_ends_too(clock):
    warm, measured = run(clock, "quick", 30.0)
    assert warm["runs"] == 1
    assert measured["runs"] == 1
    assert run(clock, "standard", 30.0)[1]["runs"] == 20


def test_warm_up_goes_on_until_the_time_has_settled(clock):
    falling = [0.1 * 0.98**number for number in range(100)]
    warm, _ = run(clock, "standard", *falling)
    assert warm["steady"]
    assert warm["runs"] > 100


def test_warm_up_gives_up_when_the_time_never_settles(clock):
    growing = [0.1 * 1.01**number for number in range(2000)]
    warm, _ = run(clock, "standard", *growing)
    assert not warm["steady"]
    assert 15 <= warm["seconds"] < 16


@pytest.mark.parametrize(
    ("times", "steady"), [([100] * 20, True), ([100] * 10 + [103] * 10, False), ([100, 101], False)]
)
def test_steady_means_that_the_median_changed_by_less_than_two_percent(times, steady):
    assert is_steady(times, 0.02) is steady


def test_inputs_are_used_in_turn_and_every_time_is_kept_in_order(clock):
    call = clock.call_taking(0.001, 0.002, 0.003, 0.004)
    limits = {"enough_runs": 4, "min_seconds": 0.0, "max_seconds": 9.0}
    result = measure(call, ["a", "b"], limits, no_tick)
    assert clock.calls == ["a", "b", "a", "b"]
    assert result["samples_ms"] == [1.0, 2.0, 3.0, 4.0]
    assert result["max_of_all_runs_ms"] == 4.0


def test_of_very_many_runs_a_bounded_number_of_times_is_kept_in_order(clock, monkeypatch):
    monkeypatch.setattr(protocol, "MOST_SAMPLES", 100)
    call = clock.call_taking(*(number / 1e6 for number in range(1, 2001)))
    result = measure(call, [0], {"enough_runs": 2000, "min_seconds": 0, "max_seconds": 9.0}, no_tick)
    assert result["runs"] == 2000
    assert len(result["samples_ms"]) == 100
    assert result["samples_ms"] == sorted(result["samples_ms"])
    assert result["samples_ms"][-1] > 1.5
    assert result["max_of_all_runs_ms"] == 2.0


def test_a_run_is_done_with_enough_runs_and_time_or_when_it_is_late():
    limits = {"enough_runs": 100, "min_seconds": 2.0, "max_seconds": 6.0}
    assert not is_done(100, 1.9, limits)
    assert not is_done(99, 5.9, limits)
    assert is_done(100, 2.0, limits)
    assert is_done(1, 6.0, limits)


def test_progress_is_told_twice_a_second(clock):
    ticks = []
    limits = {"enough_runs": 100, "min_seconds": 2.0, "max_seconds": 6.0}
    measure(clock.call_taking(0.1), [0], limits, lambda *tick: ticks.append(tick))
    assert 3 <= len(ticks) < 25
    assert ticks[0][0] == "measuring"
