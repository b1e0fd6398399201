import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.ondevice.runner import facts
from edgekit.ondevice.runner.facts import cpu_parts, describe_cpu, emulation, fingerprint, gather, snapshot

DOCKER = Path(__file__).parents[2] / "docker"

RPI4 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
PC = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) CPU
flags\t\t: fpu avx2 avx512_vnni hypervisor
"""


def test_the_cpu_of_a_raspberry_pi_is_recognised():
    assert describe_cpu(RPI4) == {
        "cpu_model": "Cortex-A72",
        "cpu_part": "0x41/0xd08",
        "core": "Cortex-A72",
        "cpu_flags": ["asimd", "cpuid", "crc32", "evtstrm", "fp"],
    }


def test_the_cpu_of_a_pc_is_recognised():
    found = describe_cpu(PC)
    assert found["cpu_model"] == "Intel(R) Xeon(R) CPU"
    assert found["core"] is None
    assert "avx512_vnni" in found["cpu_flags"]


@pytest.mark.parametrize(
    ("name", "core", "board", "revision"),
    [
        ("rpi3", "Cortex-A53", "Raspberry Pi 3 Model B Rev 1.2", "a02082"),
        ("rpi4", "Cortex-A72", "Raspberry Pi 4 Model B Rev 1.5", "c03115"),
        ("rpi5", "Cortex-A76", "Raspberry Pi 5 Model B Rev 1.0", "d04170"),
    ],
)
def test_the_cpuinfo_of_real_boards_gives_cores_board_and_revision(name, core, board, revision):
    cpuinfo = (DOCKER / f"cpuinfo-{name}.txt").read_text()
    ((part, found_core, count),) = [tuple(kind.values()) for kind in cpu_parts(cpuinfo)]
    assert (part, found_core, count) == (describe_cpu(cpuinfo)["cpu_part"], core, 4)
    assert (facts._board(cpuinfo), facts._revision(cpuinfo)) == (board, revision)


def test_a_chip_with_two_kinds_of_cores_shows_both():
    a55, a76 = ("CPU implementer\t: 0x41\nCPU part\t: " + part for part in ("0xd05", "0xd0b"))
    unknown = "CPU implementer\t: 0x99\nCPU part\t: 0x001"
    assert cpu_parts("\n\n".join([a55, a55, a76, a76, a76, unknown])) == [
        {"part": "0x41/0xd05", "core": "Cortex-A55", "count": 2},
        {"part": "0x41/0xd0b", "core": "Cortex-A76", "count": 3},
        {"part": "0x99/0x001", "core": None, "count": 1},
    ]
    assert cpu_parts(PC) == []


def test_a_pc_has_no_revision_and_its_model_number_is_no_board():
    assert facts._revision(PC) is None
    assert facts._board(PC + "model\t\t: 85\n") == facts._board("")
    assert facts._revision("Revision\t: 0000\n") is None


def test_the_clocks_are_those_of_all_clusters(tmp_path, monkeypatch):
    clocks = {"cpu0": (600000, 1800000, 1800000), "cpu4": (408000, 2400000, 2208000)}
    for name, values in clocks.items():
        folder = tmp_path / name / "cpufreq"
        folder.mkdir(parents=True)
        for key, value in zip(
            ("cpuinfo_min_freq", "cpuinfo_max_freq", "scaling_max_freq"), values, strict=True
        ):
            (folder / key).write_text(f"{value}\n")
    monkeypatch.setattr(facts, "CPU_FOLDER", str(tmp_path))
    here = gather()
    assert (here["min_clock_mhz"], here["max_clock_mhz"], here["clock_limit_mhz"]) == (408.0, 2400.0, 2208.0)


def test_the_power_mode_is_what_nvpmodel_says(tmp_path, monkeypatch):
    program = tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\n[ \"$*\" = -q ] && printf 'NV Fan Mode:quiet\nNV Power Mode: MAXN\n0\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gather()["power_mode"] == "MAXN"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert gather()["power_mode"] is None


def test_a_program_that_hangs_says_nothing():
    assert facts.said_by(["sleep", "30"], 0.1) is None
    assert facts.said_by(["no-such-program"]) is None


@pytest.mark.parametrize(
    ("arch", "cpuinfo", "program", "environment", "emulated"),
    [
        ("aarch64", RPI4, "/usr/bin/python3", {}, False),
        ("x86_64", PC, None, {}, False),
        ("aarch64", PC, None, {}, True),
        ("x86_64", RPI4, None, {}, True),
        ("aarch64", RPI4, "/usr/bin/qemu-aarch64-static", {}, True),
        ("aarch64", RPI4, None, {"QEMU_CPU": "cortex-a72"}, True),
        ("aarch64", "", None, {}, False),
    ],
)
def test_emulation_shows_in_the_cpu_in_the_program_or_in_the_environment(
    arch, cpuinfo, program, environment, emulated
):
    assert (emulation(arch, cpuinfo, program, environment) is not None) is emulated


def test_the_fingerprint_stays_through_updates_and_changes_with_the_hardware():
    here = gather()
    assert (
        fingerprint({**here, "kernel": "9.9", "python": "3.99", "governor": "powersave"})
        == here["fingerprint"]
    )
    assert fingerprint({**here, "cores": here["cores"] + 1}) != here["fingerprint"]
    assert fingerprint({**here, "memory_total_mb": here["memory_total_mb"] * 2}) != here["fingerprint"]


def test_this_machine_is_described_as_json_data():
    here = gather()
    assert json.loads(json.dumps(here)) == here
    assert here["cores"] >= here["usable_cores"] >= 1
    assert here["packages"]["onnxruntime"]
    assert gather(("no-such-package",))["packages"] == {"no-such-package": None}


def test_a_snapshot_counts_busy_seconds_upwards():
    first, second = snapshot(), snapshot()
    assert second["cpu_seconds"]["busy"] >= first["cpu_seconds"]["busy"]
    known = {"load_average", "clock_mhz", "temperature_c", "throttled", "cpu_seconds"}
    assert known <= set(first) == set(second)


def test_peak_memory_is_at_least_the_memory_of_now():
    assert facts.peak_rss_mb() >= facts.rss_mb() > 1


def test_the_throttle_bits_come_from_vcgencmd_where_sysfs_has_none(tmp_path, monkeypatch):
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\necho throttled=0x50005\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert snapshot()["throttled"] == "0x50005"
    program.write_text("#!/bin/sh\necho VCHI initialization failed\n")
    assert snapshot()["throttled"] is None


def test_the_watcher_prints_snapshots_until_its_input_is_closed():
    command = [sys.executable, facts.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watcher:
        line = watcher.stdout.readline()
        watcher.communicate(timeout=30)
    assert set(json.loads(line)) == set(snapshot())
    assert watcher.returncode == 0
