import json
import subprocess
import sys

import pytest

from edgekit.ondevice.runner import facts
from edgekit.ondevice.runner.facts import describe_cpu, emulation, fingerprint, gather, snapshot

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
    assert set(first) == {"load_average", "clock_mhz", "temperature_c", "throttled", "cpu_seconds"}


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
