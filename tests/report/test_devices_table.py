import io

import pytest
from records import HOSTILE, PI4, bench, manifest
from rich.console import Console

from edgekit.errors import OutsideFailure
from edgekit.report.devices_table import print_devices

PC = {"board": None, "arch": "x86_64", "core": None, "cpu_model": "AMD EPYC", "cores": 2, "emulated": False}
FAST = [1.0] * 600
BOARD = {**PI4, "emulated": True, "emulated_how": "QEMU"}


def on(name, machine, samples=None):
    """A benchmark of that device."""
    return {**bench(machine=machine, samples=samples), "device": {"name": name, "address": name}}


def emulated(*, peak_mb=84.7, least_mb=65.6):
    """What a board in a container showed."""
    return {
        "schema": "edgekit.emulated/1",
        "bundle": {"name": "digits-rpi4", "target": "rpi4", "profile": "rpi4"},
        "check": {"samples": 8, "lowest_snr_db": 125.04},
        "memory": {
            "peak_rss_mb": peak_mb,
            "at_least_rss_mb": least_mb,
            "how": "by its maps",
            "artifact_mb": 0.31,
        },
        "container": None,
        "count": None,
        "facts": BOARD,
        "mismatches": [],
    }


def shown(*rows, width=100):
    """The lines that are printed."""
    stream = io.StringIO()
    print_devices(rows, manifest(), Console(file=stream, width=width))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def words(line):
    return line.split()


def test_each_device_has_a_row_with_what_it_is_below_its_name():
    lines = shown(
        ("local", on("local", PC, FAST)),
        ("ssh://root@127.0.0.1:43991", on("ssh://root@127.0.0.1:43991", PC, FAST)),
        ("kitchen", on("kitchen", PI4, FAST)),
        ("container:rpi4", emulated()),
    )
    assert lines[0] == ""
    assert words(lines[1]) == "device outcome latency p50 p90 peak memory golden".split()
    rows = [words(line) for line in lines[3:]]
    assert rows[0] == "local MEASURED HERE 1 ms 1 ms 43.7 MB 71.2 dB".split()
    assert rows[1] == "AMD EPYC, x86_64, 2 cores".split()
    assert rows[2] == "ssh://root@127.0.0.1:43991 MEASURED THERE 1 ms 1 ms 43.7 MB 71.2 dB".split()
    assert "kitchen MET 1 ms 1 ms 43.7 MB 71.2 dB".split() in rows
    place = rows.index("container:rpi4 EMULATED not time not time 84.7 MB 125.0 dB".split())
    assert rows[place + 1][:4] == "emulated Raspberry Pi 4".split()
    assert lines[-1] == "not time: emulated, where no millisecond says anything about the device"


def test_an_emulated_device_that_needs_too_much_memory_is_called_so():
    lines = shown(("container:rpi4", emulated(peak_mb=300.0, least_mb=280.0)))
    assert "EMULATED, NOT MET" in next(line for line in lines if line.startswith("container"))


def test_a_device_that_failed_has_a_row_without_figures_and_its_reason_once_below():
    name = "ssh://pi@kitchen"
    failed = OutsideFailure("no answer", where=name, todo="look at the network")
    lines = shown((name, failed), ("local", on("local", PC)))
    assert words(lines[3]) == [name, "FAILED", "-", "-", "-", "-"]
    assert lines[-1] == f"{name} failed: no answer; look at the network"
    other = OutsideFailure("no answer", where="ssh://pi@10.0.0.7")
    assert shown(("kitchen", other))[-1] == "kitchen failed: ssh://pi@10.0.0.7: no answer"


def test_nothing_is_said_of_emulation_where_nothing_is_emulated():
    assert not any("emulated" in line for line in shown(("local", on("local", PC))))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_hostile_names_move_no_cursor_and_no_row_is_wider_than_the_terminal(width):
    machine = {**PC, "cpu_model": HOSTILE}
    failed = OutsideFailure(HOSTILE, where="a device")
    lines = shown((HOSTILE, on(HOSTILE, machine)), ("other", failed), width=width)
    assert all(character.isprintable() for line in lines for character in line)
    if width >= 80:
        assert max(map(len, lines)) <= width
