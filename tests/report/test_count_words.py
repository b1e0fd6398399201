"""A count of executed instructions in words."""

import pytest

from edgekit.report.count_words import count_lines, millions

RECORD = {
    "what_it_is": "executed instructions of the emulated core, not time",
    "threads": 1,
    "inferences": 5,
    "spread": 0.0051,
    "per_inference": {
        "instructions": 84_000_000, "load": 21_000_000, "store": 4_200_000, "branch": 4_200_000,
        "integer": 12_600_000, "simd_fp": 42_000_000, "other": 0, "fma": 40_000_000, "dot": 0, "widening": 0,
        "load_bytes": 269_800_000, "store_bytes": 24_700_000,
    },
    "emulator": "qemu-user 1:7.2",
    "facts": {"core": "Cortex-A72", "cpu_model": "Cortex-A72", "arch": "aarch64"},
}  # fmt: skip


def test_a_count_is_told_by_class_and_never_as_a_time():
    assert count_lines(RECORD) == [
        "84 million instructions, by 1 thread; 5 inferences differ by 0.51 %",
        "SIMD and floating point 50.0 %, loads 25.0 %, stores 5.0 %, branches 5.0 %, integer 15.0 %, "
        "other 0.0 %",
        "40 million floating-point multiply-adds, 270 MB loaded and 24.7 MB stored",
        "counted on an emulated Cortex-A72 by qemu-user 1:7.2: "
        "executed instructions of the emulated core, not time",
    ]


def test_what_a_device_says_of_itself_cannot_move_the_cursor():
    facts = {"core": None, "cpu_model": "x\x1b[2J", "arch": "aarch64"}
    assert "\x1b" not in "".join(count_lines({**RECORD, "facts": facts}))


WRITTEN = {
    980_396: "0.98 million",
    84_062_910: "84.1 million",
    99_960_000: "100 million",
    12_345_678_901: "12,346 million",
}


@pytest.mark.parametrize("number", WRITTEN)
def test_a_count_is_written_in_millions(number):
    assert millions(number) == WRITTEN[number]
