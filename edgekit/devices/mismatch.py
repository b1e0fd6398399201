"""How a device is not what a profile says, and what makes its figures doubtful: one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgekit.bundle.manifest import DeviceIdentity
from edgekit.errors import clean, count
from edgekit.ondevice.runner.contamination import THROTTLE_BITS

Facts = Mapping[str, Any]

# The kernel and the GPU keep memory back: of the 512 MB of a Pi Zero 2 W they leave 0.81 (MemTotal in
# raspberrypi/picamera2#1358), of larger boards more. The next smaller memory is three quarters or half.
LEAST_MEMORY_SHARE = 0.78
CLOCK_TOLERANCE = 0.03
MOST_OVERCLOCKED = 1.25  # a Raspberry Pi 4 may run at 1.8 GHz as delivered, its profile says 1.5
# With these drivers `powersave` is what balances, not the lowest clock.
BALANCED_POWERSAVE = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
NOW, SINCE_START = range(4), range(16, 20)
UNDER_VOLTAGE = 1 << 0 | 1 << 16


def mismatches(facts: Facts, device: DeviceIdentity) -> list[str]:
    """Where a device is not the one that `device` describes, with its `doubts`; the gravest first.

    Args:
        facts: from `edgekit.devices.probe.probe`.
        device: of a bundle's manifest, or `identity_of` a target. Where it is local, any machine of its
            architecture counts.
    """
    found = [*_emulated(facts), *_architecture(facts, device)]
    if not device.local:
        found += _core(facts, device)
        # What follows is the machine around the emulator, not the board.
        if not facts["emulated"]:
            found += [*_board(facts, device), *_clock(facts, device), *_memory(facts, device)]
    return [*found, *_bits(facts), *_slow(facts)]


def doubts(facts: Facts) -> list[str]:
    """What makes the figures of a device doubtful, whatever it is meant to be."""
    return [*_emulated(facts), *_bits(facts), *_slow(facts)]


def _emulated(facts: Facts) -> Iterator[str]:
    if facts["emulated"]:
        yield f"it is emulated ({clean(facts['emulated_how'])}): function and memory are real, time is not"


def _bits(facts: Facts) -> Iterator[str]:
    if facts["os_bits"] == 32 and facts["kernel_bits"] == 64:
        yield (
            "its system has 32 bits on a 64-bit kernel, and most runtimes have no packages for that; "
            "install the 64-bit edition"
        )


def _slow(facts: Facts) -> list[str]:
    """What keeps it slow; of an emulated board nothing, for it would be said of the machine around it."""
    return [] if facts["emulated"] else [*_governor(facts), *_throttled(facts["throttled"])]


def _architecture(facts: Facts, device: DeviceIdentity) -> Iterator[str]:
    if facts["arch"] != device.arch:
        yield f"it is {clean(facts['arch'])}, {clean(device.target)} is {clean(device.arch)}"


def _core(facts: Facts, device: DeviceIdentity) -> Iterator[str]:
    names = [part["core"] or part["part"] for part in facts["cpu_parts"]] or [facts["cpu_model"] or "unknown"]
    if device.core.casefold() not in [name.casefold() for name in names]:
        has = clean(" and ".join(names))
        yield f"its core is {has}, that of {clean(device.target)} is {clean(device.core)}"


def _board(facts: Facts, device: DeviceIdentity) -> Iterator[str]:
    target, board = clean(device.target), facts["board"]
    if board and device.board and not board.startswith(device.board):
        yield f"it is a {clean(board)}, {target} is a {clean(device.board)}"
    cores = _cores(facts, device)
    if cores != device.cores:
        mode = f" (power mode {clean(facts['power_mode'])})" if facts["power_mode"] else ""
        yield f"it has {count(cores, 'core')}{mode}, {target} has {device.cores}"


def _cores(facts: Facts, device: DeviceIdentity) -> int:
    """How many there are of the profile's kind, where the chip has several kinds."""
    parts = facts["cpu_parts"]
    same = [part["count"] for part in parts if (part["core"] or "").casefold() == device.core.casefold()]
    found: int = same[0] if same and len(parts) > 1 else facts["cores"]
    return found


def _clock(facts: Facts, device: DeviceIdentity) -> Iterator[str]:
    most, limit = facts["max_clock_mhz"], facts["clock_limit_mhz"]
    if not most or not device.clock_mhz:
        return
    target, wanted = clean(device.target), device.clock_mhz
    if most < wanted * (1 - CLOCK_TOLERANCE):
        yield f"its highest clock is {most:.0f} MHz, that of {target} is {wanted:.0f} MHz: it is slower"
    elif most > wanted * MOST_OVERCLOCKED:
        yield f"its highest clock is {most:.0f} MHz, that of {target} is {wanted:.0f} MHz: it is faster"
    if limit and limit < min(most, wanted) * (1 - CLOCK_TOLERANCE):
        yield (
            f"its clock is limited to {limit:.0f} MHz of {most:.0f} MHz, {target} has {wanted:.0f} MHz; "
            "lift the limit (scaling_max_freq)"
        )


def _memory(facts: Facts, device: DeviceIdentity) -> Iterator[str]:
    sold = (facts["revision_means"] or {}).get("memory_mb")
    has = [size for size in (sold or facts["memory_total_mb"], facts["memory_limit_mb"]) if size]
    if has and device.memory_mb and min(has) < device.memory_mb * LEAST_MEMORY_SHARE:
        target = clean(device.target)
        yield f"its memory is {min(has):.0f} MB, that of {target} is {device.memory_mb:.0f} MB"


def _governor(facts: Facts) -> Iterator[str]:
    if facts["governor"] == "powersave" and facts["clock_driver"] not in BALANCED_POWERSAVE:
        todo = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield f"its clock governor is powersave, which keeps the clock low; set it by `{todo}`"


def _throttled(throttled: str | None) -> Iterator[str]:
    """What the firmware of a Raspberry Pi says of power and heat."""
    try:
        bits = int(throttled or "0", 16)
    except ValueError:
        return
    now, since = ([THROTTLE_BITS[bit] for bit in part if bits >> bit & 1] for part in (NOW, SINCE_START))
    todo = "use a better power supply and cable" if bits & UNDER_VOLTAGE else "let it cool, or cool it better"
    if now:
        yield f"its firmware slows it down now: {', '.join(now)}; {todo}"
    elif since:
        yield f"its firmware has slowed it down since it was started: {', '.join(since)}; {todo}"
