import pytest

from edgekit.ondevice.runner.contamination import find

QUIET = {"load_average": 0.1, "clock_mhz": 1800.0, "temperature_c": 50.0, "throttled": "0x0"}
LATENCY = {"p50_ms": 10.0, "p90_ms": 10.5}
USED = {"wall_seconds": 60.0, "cpu_seconds": 60.0, "involuntary_switches": 30.0}


def snapshots(*, busy=60.0, stolen=0.0, during=(), **after):
    before = {**QUIET, "cpu_seconds": {"busy": 100.0, "stolen": 5.0}}
    last = {**QUIET, "cpu_seconds": {"busy": 100.0 + busy, "stolen": 5.0 + stolen}, **after}
    return [before, *({**QUIET, "cpu_seconds": None, **one} for one in during), last]


def warnings(taken=None, used=USED, latency=LATENCY, threads=1, cores=4):
    return find(taken or snapshots(), used, latency, threads=threads, cores=cores)


def test_a_clean_run_has_no_warning():
    assert warnings() == []


def test_other_programs_are_seen_where_they_leave_too_few_cores():
    assert warnings(snapshots(busy=60 + 180)) == ["other programs used 3.0 cores of 4 during the run"]
    assert warnings(snapshots(busy=60 + 60)) == []
    assert warnings(snapshots(busy=60 + 60), threads=4) != []


def test_time_that_a_hypervisor_gives_away_is_seen():
    assert warnings(snapshots(stolen=6.0)) == [
        "the hypervisor gave 0.10 cores' worth of time to other machines"
    ]


def test_waiting_for_the_cpu_and_interruptions_are_seen():
    found = warnings(used={**USED, "cpu_seconds": 40.0, "involuntary_switches": 6000.0})
    assert found == [
        "the run got the CPU only 67 % of the time",
        "the system interrupted the run 100 times a second to run something else",
    ]


@pytest.mark.parametrize("taken", [snapshots(clock_mhz=1500.0), snapshots(during=[{"clock_mhz": 1500.0}])])
def test_a_clock_that_falls_by_more_than_a_twentieth_is_seen_even_if_it_recovers(taken):
    assert warnings(taken) == ["the clock fell from 1800 to 1500 MHz during the run"]


def test_a_clock_that_trembles_is_not():
    assert warnings(snapshots(clock_mhz=1750.0)) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("0x0", "0x0", None),
        ("0x50000", "0x50000", None),  # sticky bits of an event before the run
        ("0x0", "0x50005", "under-voltage, throttled, under-voltage has occurred, throttling has occurred"),
        ("0x0", "0x40000", "throttling has occurred"),
        ("0x50000", "0x50004", "throttled"),
        ("0x50005", "0x50000", "under-voltage, throttled"),
        ("0x0", "0x2", "the clock is capped"),
        ("0x0", "0x8", "near the temperature limit"),
        ("0x0", "0x80000", "the temperature limit was reached"),
    ],
)
def test_the_firmwares_throttle_bits_are_read_against_those_before_the_run(before, after, words):
    taken = snapshots(throttled=after)
    taken[0]["throttled"] = before
    assert warnings(taken) == ([] if words is None else [f"the firmware reports: {words}"])


def test_scattered_times_are_seen_and_too_few_runs_are_no_scatter():
    assert warnings(latency={"p50_ms": 10.0, "p90_ms": 20.0}) == [
        "the times are scattered: p90 is 2.00 times p50"
    ]
    assert warnings(latency={"p50_ms": 10.0, "p90_ms": None}) == []


def test_a_system_that_tells_nothing_is_judged_by_its_load_alone():
    silent = dict.fromkeys([*QUIET, "cpu_seconds"])
    unknown = {"wall_seconds": 60.0, "cpu_seconds": None, "involuntary_switches": None}
    assert warnings([silent, silent], used=unknown) == []
    busy = {**silent, "load_average": 3.0}
    assert warnings([busy, silent], used=unknown) == [
        "the machine was busy before the run: load 3.0, cores: 4"
    ]
