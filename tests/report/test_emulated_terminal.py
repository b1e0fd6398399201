import io
import re

import pytest
from records import BUDGET, HOSTILE, PI4, manifest
from rich.console import Console

from edgekit.cost import Cost
from edgekit.report.emulated_terminal import print_emulated

EMULATED = "it is emulated (QEMU): function and memory are real, time is not"
FOREIGN = "its core is Cortex-A76, that of rpi4 is Cortex-A72"


def record(*, peak_mb=84.7, least_mb=65.6, snr_db=125.04, said=(EMULATED,), name="digits-rpi4"):
    return {
        "schema": "edgekit.emulated/1",
        "bundle": {"name": name, "target": "rpi4", "profile": "rpi4"},
        "check": {"samples": 8, "lowest_snr_db": snr_db},
        "memory": {
            "peak_rss_mb": peak_mb,
            "at_least_rss_mb": least_mb,
            "how": "by its maps",
            "artifact_mb": 0.31,
        },
        "container": None,
        "count": None,
        "facts": {**PI4, "emulated": True, "emulated_how": "QEMU"},
        "mismatches": list(said),
    }


def shown(found, described=None, width=100):
    stream = io.StringIO()
    print_emulated(found, described or manifest(), Console(file=stream, width=width))
    return stream.getvalue()


def test_it_says_what_was_shown_and_that_no_time_was_measured():
    text = " ".join(shown(record()).split())
    assert text.startswith(
        "EMULATED digits-rpi4: on an emulated Cortex-A72 the bundle installs, starts, and its 8 golden "
        "samples agree to 125.0 dB no time was measured: an emulator's says nothing about the device "
    )
    assert "warning" not in text
    assert "agree exactly" in " ".join(shown(record(snr_db=None)).split())


def test_it_is_held_against_the_limits_that_are_not_time():
    lines = shown(record()).splitlines()
    assert "Against the budget of rpi4, less what is time" in lines
    (memory,) = (line.split() for line in lines if line.startswith("peak memory"))
    assert memory == "peak memory 256 MB 84.7 MB emulated MET".split()
    assert any(line.split() == "65.6 to 84.7 MB".split() for line in lines)
    assert not any("latency" in line for line in lines)
    assert not re.search(r"\d ?(ms|µs|s)\b", "\n".join(lines))


@pytest.mark.parametrize(
    ("peak_mb", "least_mb", "verdict"), [(300.0, 280.0, "NOT MET"), (300.0, 200.0, "UNPROVEN")]
)
def test_memory_is_above_its_limit_or_may_be(peak_mb, least_mb, verdict):
    lines = shown(record(peak_mb=peak_mb, least_mb=least_mb)).splitlines()
    assert next(line for line in lines if line.startswith("peak memory")).rstrip().endswith(verdict)


def test_a_board_that_is_not_the_bundles_is_a_warning():
    assert f"warning: {FOREIGN}" in shown(record(said=(EMULATED, FOREIGN)))


def test_a_bundle_without_limits_has_no_table():
    assert "Against the budget" not in shown(record(), manifest(Cost(latency_p90_ms=BUDGET.latency_p90_ms)))


def test_hostile_names_move_no_cursor():
    found = record(said=(HOSTILE,))
    found["facts"]["core"] = HOSTILE
    text = shown(found, {**manifest(), "name": HOSTILE}, width=80)
    assert all(character.isprintable() or character == "\n" for character in text)
