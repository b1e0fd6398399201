"""What the machine is and how it is doing: read from the system, nothing is changed. Linux first.

Runs alone too: it prints a snapshot a second until its standard input is closed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import re
import select
import subprocess
import sys
import time
from typing import Any, Sequence

# MIDR part numbers (implementer, part) of the cores that boards and phones have: the kernel's cputype.h.
CORES = {
    ("0x41", "0xb76"): "ARM1176",
    ("0x41", "0xc07"): "Cortex-A7",
    ("0x41", "0xc08"): "Cortex-A8",
    ("0x41", "0xc09"): "Cortex-A9",
    ("0x41", "0xc0f"): "Cortex-A15",
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4d"): "Cortex-A715",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd80"): "Cortex-A520",
    ("0x41", "0xd81"): "Cortex-A720",
    ("0x4e", "0x004"): "Carmel",
}
STABLE = ("board", "arch", "cpu_model", "cpu_part", "cpu_flags", "cores", "max_clock_mhz")
CPU_FOLDER = "/sys/devices/system/cpu"


def gather(packages: Sequence[str] = ("numpy", "onnxruntime")) -> dict[str, Any]:
    """The facts that hold for the whole run; what the system does not tell is None.

    Args:
        packages: whose versions are wanted.
    """
    cpuinfo = read("/proc/cpuinfo") or ""
    how_emulated = emulation(platform.machine(), cpuinfo, _own_program(), dict(os.environ))
    facts: dict[str, Any] = {
        "board": _board(cpuinfo),
        "revision": _revision(cpuinfo),
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_total_mb": _memory_total_mb(),
        "governor": read(CPU_FOLDER + "/cpu0/cpufreq/scaling_governor"),
        "min_clock_mhz": min(_clocks_mhz("cpuinfo_min_freq"), default=None),
        "max_clock_mhz": _highest_mhz("cpuinfo_max_freq"),
        "clock_limit_mhz": _highest_mhz("scaling_max_freq"),
        "power_mode": _power_mode(),
        "system": platform.system(),
        "kernel": platform.release(),
        "os": _os_name(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "python": platform.python_version(),
        "python_bits": 64 if sys.maxsize > 2**32 else 32,
        "packages": {name: _package_version(name) for name in packages},
        "emulated": how_emulated is not None,
        "emulated_how": how_emulated,
        "cpu_parts": cpu_parts(cpuinfo),
    }
    facts.update(describe_cpu(cpuinfo))
    facts["virtual_machine"] = "hypervisor" in facts["cpu_flags"]
    facts["fingerprint"] = fingerprint(facts)
    return facts


def fingerprint(facts: dict[str, Any]) -> str:
    """SHA-256 over the facts that stay as they are while the hardware does: updates do not change it."""
    stable = {name: facts.get(name) for name in STABLE}
    # The kernel keeps some memory back, an amount that changes with its version: whole quarters of a GB.
    memory_mb = facts.get("memory_total_mb")
    stable["memory_quarter_gb"] = None if memory_mb is None else round(memory_mb / 250)
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()


def describe_cpu(cpuinfo: str) -> dict[str, Any]:
    """`cpu_model`, `cpu_part`, `core` (its trade name) and `cpu_flags` from the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    implementer, part = fields.get("cpu implementer"), fields.get("cpu part")
    core = CORES.get((implementer or "", part or ""))
    model = fields.get("model name") or core or platform.processor() or None
    flags = fields.get("flags") or fields.get("features") or ""
    return {
        "cpu_model": model,
        "cpu_part": f"{implementer}/{part}" if implementer and part else None,
        "core": core,
        "cpu_flags": sorted(set(flags.split())),
    }


def cpu_parts(cpuinfo: str) -> list[dict[str, Any]]:
    """Every kind of Arm core, in the order of /proc/cpuinfo: its `part`, trade name as `core`, and `count`.

    Chips with cores of several kinds list the small ones first.
    """
    counts: dict[tuple[str, str], int] = {}
    implementer = ""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "CPU implementer":
            implementer = value.strip()
        elif key.strip() == "CPU part":
            kind = (implementer, value.strip())
            counts[kind] = counts.get(kind, 0) + 1
    return [
        {"part": "/".join(kind), "core": CORES.get(kind), "count": count} for kind, count in counts.items()
    ]


def emulation(arch: str, cpuinfo: str, program: str | None, environment: dict[str, str]) -> str | None:
    """In words how it shows that a user-mode emulator runs this process; None when nothing shows it.

    Args:
        arch: what the system says it is, "aarch64".
        cpuinfo: text of /proc/cpuinfo.
        program: the program file of this very process as the kernel knows it.
        environment: the environment variables.
    """
    if program and os.path.basename(program).startswith("qemu-"):
        return f"the kernel runs this process in {os.path.basename(program)}"
    fields = {line.partition(":")[0].strip().lower() for line in cpuinfo.splitlines()}
    if arch.startswith(("aarch64", "arm")) and "vendor_id" in fields and "cpu implementer" not in fields:
        return f"the system says {arch}, /proc/cpuinfo shows an x86 CPU"
    if arch in ("x86_64", "i686") and "cpu implementer" in fields:
        return f"the system says {arch}, /proc/cpuinfo shows an ARM CPU"
    for name in ("QEMU_CPU", "QEMU_LD_PREFIX"):
        if name in environment:
            return f"the environment variable {name} is set"
    return None


def _own_program() -> str | None:
    # QEMU answers /proc/self/exe with the guest program; it does not translate /proc/thread-self.
    try:
        return os.readlink("/proc/thread-self/exe")
    except OSError:
        return None


def snapshot() -> dict[str, Any]:
    """How the machine is doing now; what the system does not tell is None.

    `clock_s` is the reading of the clock that never goes back, the same for all processes. `cpu_seconds` are
    the seconds that all cores together were `busy`, and `stolen` by a hypervisor, since the machine started.
    """
    return {
        "clock_s": time.monotonic(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "clock_mhz": _highest_mhz("scaling_cur_freq"),
        "temperature_c": _temperature_c(),
        "throttled": _throttled(),
        "governor": read(CPU_FOLDER + "/cpu0/cpufreq/scaling_governor"),
        "cpu_seconds": _cpu_seconds(),
    }


def rss_mb(field: str = "VmRSS") -> float | None:
    """Resident memory of this process now, or its peak with "VmHWM", in MB of 10^6 bytes."""
    match = re.search(rf"^{field}:\s+(\d+) kB", read("/proc/self/status") or "", re.MULTILINE)
    return int(match.group(1)) * 1024 / 1e6 if match else None


def peak_rss_mb() -> float | None:
    """Peak resident memory of this process, MB.

    VmHWM counts this program only; ru_maxrss, used where there is no /proc, starts from the peak of the
    process that started it.
    """
    peak = rss_mb("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def usage() -> dict[str, float | None]:
    """What this process has used so far: `cpu_seconds`, and the `involuntary_switches` forced on it."""
    try:
        import resource
    except ImportError:
        return {"cpu_seconds": None, "involuntary_switches": None}
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_seconds": used.ru_utime + used.ru_stime, "involuntary_switches": float(used.ru_nivcsw)}


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read(path: str) -> str | None:
    """The text of a small system file; None when there is none or it may not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1_000_000).strip("\0\n ")
    except OSError:
        return None


def said_by(command: Sequence[str], seconds: float = 5.0) -> str | None:
    """What a program prints; None when there is none, or it fails, or takes longer than `seconds`."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _board(cpuinfo: str) -> str | None:
    model = read("/proc/device-tree/model") or read("/sys/firmware/devicetree/base/model")
    # Kernels for Arm boards say it here too; in a container, /sys shows the machine around it.
    model = model or _field(cpuinfo, "Model")
    if model:
        return model
    names = [read("/sys/class/dmi/id/" + name) for name in ("sys_vendor", "product_name")]
    return " ".join(name for name in names if name) or None


def _revision(cpuinfo: str) -> str | None:
    """The revision code of a Raspberry Pi, "c03115"."""
    code = _field(cpuinfo, "Revision")
    if code is None:
        try:
            with open("/proc/device-tree/system/linux,revision", "rb") as file:
                code = file.read(4).hex().lstrip("0")
        except OSError:
            return None
    return code.lower() if code.strip("0") else None


def _field(cpuinfo: str, name: str) -> str | None:
    match = re.search(rf"^{name}[ \t]*:[ \t]*(\S.*?)[ \t]*$", cpuinfo, re.MULTILINE)
    return match.group(1) if match else None


def _power_mode() -> str | None:
    """The power mode of a Jetson, "MAXN"; None elsewhere."""
    match = re.search(r"NV Power Mode: *(\S+)", said_by(["nvpmodel", "-q"]) or "")
    return match.group(1) if match else None


def _os_name() -> str | None:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', read("/etc/os-release") or "", re.MULTILINE)
    return match.group(1) if match else None


def _memory_total_mb() -> float | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", read("/proc/meminfo") or "", re.MULTILINE)
    return round(int(match.group(1)) * 1024 / 1e6, 1) if match else None


def _highest_mhz(name: str) -> float | None:
    return max(_clocks_mhz(name), default=None)


def _clocks_mhz(name: str) -> list[float]:
    values = [read(path) for path in glob.glob(CPU_FOLDER + "/cpu[0-9]*/cpufreq/" + name)]
    return [int(value) / 1000 for value in values if value and value.isdigit()]


def _temperature_c() -> float | None:
    zones = {}
    for folder in sorted(glob.glob("/sys/class/thermal/thermal_zone*")):
        value = read(folder + "/temp")
        if value and value.lstrip("-").isdigit():
            zones[read(folder + "/type") or folder] = int(value) / 1000
    # Some boards have zones that always say 100; those of the CPU are named so.
    named = [value for kind, value in zones.items() if re.search("cpu|soc|pkg", kind, re.IGNORECASE)]
    values = named or list(zones.values())[:1]
    return max(values) if values else None


def _throttled() -> str | None:
    """The firmware's throttle bits of a Raspberry Pi, "0x0"; None elsewhere."""
    value = read("/sys/devices/platform/soc/soc:firmware/get_throttled")
    if value:
        return "0x" + value.lower().replace("0x", "")
    match = re.search(r"throttled=(0x[0-9a-fA-F]+)", said_by(["vcgencmd", "get_throttled"]) or "")
    return match.group(1).lower() if match else None


def _cpu_seconds() -> dict[str, float] | None:
    first = (read("/proc/stat") or "").split("\n", 1)[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(value) for value in first[1:9])
    return {"busy": (user + nice + system + irq + softirq) / ticks, "stolen": steal / ticks}


def _package_version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def watch() -> None:
    """Print one snapshot a second, a JSON line each, until standard input is closed."""
    os.nice(19)
    while not select.select([sys.stdin], [], [], 1.0)[0]:
        print(json.dumps(snapshot()), flush=True)


if __name__ == "__main__":
    watch()
