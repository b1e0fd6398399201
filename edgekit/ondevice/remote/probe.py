"""Look at the device and print its facts: `runner/facts`, and what matters before a bundle is put there.

Nothing is changed, and nothing is named that says who the owner is but the user's own name and home. What the
system does not tell is None.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import struct
import sys
from typing import Any, Dict, Mapping, Sequence

PACKAGES = (
    "numpy onnxruntime openvino tflite-runtime ai-edge-litert executorch torch tensorrt".split()
)  # what a bundle's runtime may need, by the names that pip knows
VERSIONS = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
PYTHON_SECONDS = 60.0  # a start of Python takes up to half a minute on a busy emulator
# raspberrypi/documentation, revision-codes.adoc; bits of a new-style code: NOQuuuWuFMMMCCCCPPPPTTTTTTTTRRRR.
PI_MEMORY_GB = (0.25, 0.5, 1, 2, 4, 8, 16)
PI_MAKERS = ("Sony UK", "Egoman", "Embest", "Sony Japan", "Embest", "Stadium")
PI_CHIPS = ("BCM2835", "BCM2836", "BCM2837", "BCM2711", "BCM2712")
PI_TYPES = (  # by number; "-" was never sold
    "A,B,A+,B+,2B,-,CM1,-,3B,Zero,CM3,-,Zero W,3B+,3A+,-,CM3+,4B,Zero 2 W,400,CM4,CM4S,-,5,CM5,500,"
    "CM5 Lite,CM0"
).split(",")
AT_HWCAP, AT_HWCAP2 = 16, 26  # of <elf.h>
CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"


def main(arguments: Sequence[str]) -> int:
    """Print the facts; `arguments` are the device's Pythons, whose packages are listed."""
    print(json.dumps(gather(arguments)))
    return 0


def gather(pythons: Sequence[str]) -> dict[str, Any]:
    """The facts of `runner/facts`, how the machine is doing, and what a bundle finds there."""
    facts = _part("facts")
    found: dict[str, Any] = facts.gather(PACKAGES)
    now = facts.snapshot()
    found.update({key: now[key] for key in ("load_average", "clock_mhz", "temperature_c", "throttled")})
    found["throttled_means"] = throttle_words(found["throttled"])
    found["revision_means"] = decode_revision(found["revision"] or "")
    found.update(_place())
    for more in (_processor, _memory, _system, _around):
        found.update(more(facts))
    packages = {path: _packages_of(path, facts) for path in pythons}
    found["packages_of"] = packages
    found["runtimes"] = {}
    for versions in packages.values():  # the newest Python comes first, and its packages count
        found["runtimes"] = {**(versions or {}), **found["runtimes"]}
    return found


def decode_revision(code: str) -> dict[str, Any] | None:
    """What a revision code of a Raspberry Pi means.

    None for another board's, and for the codes of before the Pi 2, which are numbers without a system.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{6,8}", code):
        return None
    bits = int(code, 16)
    memory, maker, chip, kind = bits >> 20 & 7, bits >> 16 & 15, bits >> 12 & 15, bits >> 4 & 255
    if not bits >> 23 & 1 or kind >= len(PI_TYPES) or PI_TYPES[kind] == "-":
        return None
    return {
        "type": PI_TYPES[kind],
        "chip": PI_CHIPS[chip] if chip < len(PI_CHIPS) else None,
        "memory_mb": round(PI_MEMORY_GB[memory] * 2**30 / 1e6, 1) if memory < len(PI_MEMORY_GB) else None,
        "maker": PI_MAKERS[maker] if maker < len(PI_MAKERS) else None,
        "pcb": "1.%d" % (bits & 15),
    }


def throttle_words(throttled: str | None) -> list[str] | None:
    """The firmware's throttle bits in words, those of now before those since the start."""
    if throttled is None or not re.fullmatch(r"0x[0-9a-f]{1,8}", throttled):
        return None
    bits = int(throttled, 16)
    return [words for bit, words in _part("contamination").THROTTLE_BITS.items() if bits >> bit & 1]


def auxiliary(vector: bytes) -> Dict[int, int]:
    """The auxiliary vector that the kernel gave this process: type to value."""
    size = struct.calcsize("P")
    whole = len(vector) // (2 * size) * 2
    numbers = struct.unpack("%dP" % whole, vector[: whole * size])
    return {numbers[place]: numbers[place + 1] for place in range(0, whole, 2)}


def root_folder(environment: Mapping[str, str], home: str) -> str:
    """Edgekit's folder on this device, absolute; it need not exist."""
    own, data = environment.get("EDGEKIT_HOME"), environment.get("XDG_DATA_HOME", "")
    if own:
        return os.path.abspath(own)
    # The XDG specification: a path that is not absolute is to be ignored.
    return os.path.join(data if os.path.isabs(data) else os.path.join(home, ".local", "share"), "edgekit")


def kernel_bits(machine: str) -> int:
    """Of a kernel that says it is `machine`; armv8l is a 64-bit one that speaks to a 32-bit program."""
    return 64 if "64" in machine or machine in ("armv8l", "s390x") else 32


def _part(name: str) -> Any:
    return sys.modules["edgekit_" + name]


def _place() -> dict[str, Any]:
    """Where edgekit may put files."""
    home = os.path.abspath(os.path.expanduser("~"))
    root = nearest = root_folder(os.environ, home)
    while not os.path.exists(nearest):
        nearest = os.path.dirname(nearest)
    try:
        disk = os.statvfs(nearest)
    except OSError:
        disk = None
    return {
        "root": root,
        "root_writable": os.access(nearest, os.W_OK | os.X_OK),
        "disk_free_mb": round(disk.f_bavail * disk.f_frsize / 1e6, 1) if disk else None,
        "home": home,
        "user": _user(),
    }


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return str(os.getuid())


def _processor(facts: Any) -> dict[str, Any]:
    """Capabilities as the kernel tells them to programs, and who may change the clock."""
    vector = auxiliary(_bytes("/proc/self/auxv", 4096) or b"")
    capabilities = {"hwcap": vector.get(AT_HWCAP), "hwcap2": vector.get(AT_HWCAP2)}
    limits = [
        (facts.read(folder + "/scaling_max_freq"), facts.read(folder + "/cpuinfo_max_freq"))
        for folder in glob.glob(CPUFREQ)
    ]
    known = [int(limit) < int(most) for limit, most in limits if limit and most]
    return {
        **{name: None if value is None else hex(value) for name, value in capabilities.items()},
        "clock_limited": any(known) if known else None,
        "clock_driver": facts.read(glob.glob(CPUFREQ + "/scaling_driver")[0]) if limits else None,
        "fan": _fan(facts),
    }


def _fan(facts: Any) -> str | None:
    words = []
    for folder in sorted(glob.glob("/sys/class/thermal/cooling_device*")):
        kind = facts.read(folder + "/type") or ""
        if "fan" in kind.lower():
            step, most = (facts.read(folder + "/" + name) for name in ("cur_state", "max_state"))
            words.append("%s at step %s of %s" % (kind, step, most))
    speeds = [facts.read(path) for path in sorted(glob.glob("/sys/class/hwmon/hwmon*/fan*_input"))]
    return ", ".join([*words, *(speed + " rpm" for speed in speeds if speed)]) or None


def _memory(facts: Any) -> dict[str, Any]:
    text = facts.read("/proc/meminfo") or ""
    sizes = {name: int(size) * 1024 / 1e6 for name, size in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}
    total = sizes.get("MemTotal")
    # Control groups of version 2 and 1; a number above the whole memory means that there is no limit.
    files = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    limits = [int(text) / 1e6 for text in map(facts.read, files) if text and text.isdigit()]
    return {
        "memory_available_mb": _rounded(sizes.get("MemAvailable")),
        "swap_mb": _rounded(sizes.get("SwapTotal")),
        "memory_limit_mb": next((_rounded(limit) for limit in limits if total and limit < total), None),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _system(facts: Any) -> dict[str, Any]:
    """The userland: its bits, its C library, its services."""
    shell = _bytes(os.path.realpath("/bin/sh"), 5) or b""
    release = facts.read("/etc/nv_tegra_release") or ""
    jetson = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
    glibc = _glibc()
    musl = bool(glob.glob("/lib/ld-musl-*"))
    user = "/run/user/%d/systemd" % os.getuid()
    return {
        "kernel_bits": kernel_bits(platform.machine()),
        "os_bits": {1: 32, 2: 64}.get(shell[4]) if shell[:4] == b"\x7fELF" else None,
        "glibc": glibc,
        **({} if glibc or not musl else {"libc": "musl"}),
        "jetson_linux": "%s.%s" % jetson.groups() if jetson else None,
        "systemd": os.path.isdir("/run/systemd/system"),
        "systemd_user": os.path.isdir(user),
        "linger": os.path.exists("/var/lib/systemd/linger/" + _user()),
        "boot": _boot(facts),
    }


def _glibc() -> str | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return None
    return version if name == "glibc" and version else None


def _boot(facts: Any) -> str | None:
    """Changes with every start of the machine, and with every start of a container on it."""
    machine = facts.read("/proc/sys/kernel/random/boot_id")
    # Field 22 of process 1: when it started. The name before it may hold blanks and brackets.
    fields = (facts.read("/proc/1/stat") or "").rpartition(")")[2].split()
    first = fields[19] if len(fields) > 19 else None
    return "-".join(part for part in (machine, first) if part) or None


def _around(facts: Any) -> dict[str, Any]:
    """Signs that this is not the machine itself."""
    files = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
    signs = [name for path, name in files.items() if os.path.exists(path)]
    signs += re.findall("docker|lxc|kubepods|libpod", facts.read("/proc/1/cgroup") or "")
    virtual = (facts.said_by(["systemd-detect-virt", "--vm"]) or "").strip()
    return {
        "container": _named(os.environ) or (signs[0] if signs else None),
        "virtual_machine_kind": virtual or facts.read("/sys/hypervisor/type"),
    }


def _named(environment: Mapping[str, str]) -> str | None:
    """What systemd's container interface asks a container to be called in its environment."""
    return environment.get("container")


def _packages_of(python: str, facts: Any) -> dict[str, str] | None:
    """Versions of the packages that a Python has; it imports none of them."""
    said = facts.said_by([python, "-c", VERSIONS, *PACKAGES], PYTHON_SECONDS)
    try:
        found = json.loads(said or "")
    except ValueError:
        return None
    return {name: version for name, version in found.items() if isinstance(version, str)}


def _bytes(path: str, most: int) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError:
        return None
