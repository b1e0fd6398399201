"""Memory of an emulated program without the emulator's: the arithmetic, and what a real system says."""

import json
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.local import RUNNER
from edgekit.ondevice.runner import facts, guest_memory

MB = st.integers(1, 4000)


@given(st.lists(st.lists(st.tuples(MB, st.integers(0, 50)), min_size=1, max_size=6), min_size=1, max_size=6))
def test_the_true_peak_lies_within_the_bounds_if_the_emulator_only_grows(stages):
    """A stage is moments of (the program's memory, what the emulator has grown by); it ends in a reading."""
    emulator, guest, peak, true_peak = 30, 10, 40, 10
    readings = [{"guest": guest, "emulator": emulator, "peak": peak}]
    for moments in stages:
        for guest, growth in moments:
            emulator += growth
            peak, true_peak = max(peak, guest + emulator), max(true_peak, guest)
        readings.append({"guest": guest, "emulator": emulator, "peak": peak})
    low, high = guest_memory.bounds(readings)
    assert low <= true_peak <= high


def test_where_the_emulator_does_not_grow_the_peak_is_exact():
    readings = [
        {"guest": 10.0, "emulator": 30.0, "peak": 40.0},
        {"guest": 20.0, "emulator": 30.0, "peak": 350.0},
        {"guest": 20.0, "emulator": 30.0, "peak": 350.0},
    ]
    assert guest_memory.bounds(readings) == (320.0, 320.0)


def test_a_process_that_nothing_emulates_has_all_its_memory_to_itself():
    found = guest_memory.reading(facts)
    assert found is not None
    assert found["emulator"] == 0
    assert abs(found["guest"] - facts.rss_mb()) < 5
    assert found["peak"] >= found["guest"] - 5


def test_a_range_is_the_programs_if_it_shares_an_address_with_one_of_its_own():
    own = guest_memory.ranges(["1000-2000 r--p 0 /a", "no range", "5000-6000 rw-p 0"])
    starts = [start for start, _ in own]
    assert own == [(0x1000, 0x2000), (0x5000, 0x6000)]
    places = [
        (0, 0x1000),
        (0x1FFF, 0x3000),
        (0x2000, 0x5000),
        (0x4000, 0x5001),
        (0x5800, 0x5900),
        (0x6000, 0x7000),
    ]
    assert [guest_memory._meets(own, starts, place) for place in places] == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]


def test_what_is_resident_is_read_with_its_place():
    lines = ["1000-3000 rw-p 0 00:00 0 [heap]\n", "Size:   8 kB\n", "Rss:       4 kB\n", "VmFlags: rd wr\n"]
    assert guest_memory.resident_kb(lines) == [((0x1000, 0x3000), 4)]


def test_a_measurement_here_is_told_without_a_word_on_emulators(bundle):
    command = [sys.executable, RUNNER, "--bundle", bundle, "--memory"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert set(json.loads(done.stdout)) == {"before_load_rss_mb", "peak_rss_mb"}
