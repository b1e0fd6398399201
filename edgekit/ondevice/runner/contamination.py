"""Whether something besides the model shaped the timing: plain words for each sign of it."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

Snapshot = Mapping[str, Any]

MOST_INVOLUNTARY_SWITCHES_A_SECOND = 50.0
LEAST_CPU_SHARE = 0.9
MOST_STOLEN_SHARE = 0.02
MOST_CLOCK_DROP = 0.05
MOST_P90_OVER_P50 = 1.5
# Bits of the Raspberry Pi's firmware; the high ones stay set until the board restarts.
THROTTLE_BITS = {
    0: "under-voltage",
    1: "the clock is capped",
    2: "throttled",
    3: "near the temperature limit",
    16: "under-voltage has occurred",
    17: "the clock was capped",
    18: "throttling has occurred",
    19: "the temperature limit was reached",
}
POWER_BITS = (0, 16)
HEAT_BITS = (1, 2, 3, 17, 18, 19)


def find(
    snapshots: Sequence[Snapshot],
    usage: Mapping[str, Any],
    latency: Mapping[str, Any],
    *,
    threads: int,
    cores: int,
    sustained: bool = False,
) -> list[str]:
    """What makes this run doubtful, one sentence each; empty for a clean run.

    Args:
        snapshots: how the machine was before, perhaps during, and after the run, in that order.
        usage: `wall_seconds`, `cpu_seconds` and `involuntary_switches` of this process during the run; a
            value that the system does not tell is None.
        latency: `p50_ms` and `p90_ms` (which may be None).
        threads: that one inference may use.
        cores: of the machine.
        sustained: the run asks what the machine gives once it is warm: a lower clock is then its answer.
    """
    found = _from_others(snapshots[0], snapshots[-1], usage, free=max(0, cores - threads), cores=cores)
    found += _from_the_scheduler(usage)
    found += [] if sustained else _from_the_clock(snapshots)
    found += from_the_firmware(snapshots, POWER_BITS if sustained else tuple(THROTTLE_BITS))
    p50, p90 = latency["p50_ms"], latency["p90_ms"]
    if p90 is not None and p90 > MOST_P90_OVER_P50 * p50:
        found.append(f"the times are scattered: p90 is {p90 / p50:.2f} times p50")
    return found


def _from_others(
    before: Snapshot, after: Snapshot, usage: Mapping[str, Any], *, free: int, cores: int
) -> list[str]:
    wall = usage["wall_seconds"]
    start, end = before["cpu_seconds"], after["cpu_seconds"]
    if not start or not end or usage["cpu_seconds"] is None or wall <= 0:
        load = before["load_average"]
        busy = load is not None and load > 0.5 * cores
        return [f"the machine was busy before the run: load {load:.1f}, cores: {cores}"] if busy else []
    found = []
    others = (end["busy"] - start["busy"] - usage["cpu_seconds"]) / wall
    # What others use of the cores that this run leaves free does little harm; a tenth is the clock's grain.
    if others > max(0.1, 0.5 * free):
        found.append(f"other programs used {others:.1f} cores of {cores} during the run")
    stolen = (end["stolen"] - start["stolen"]) / wall
    if stolen > MOST_STOLEN_SHARE:
        found.append(f"the hypervisor gave {stolen:.2f} cores' worth of time to other machines")
    return found


def _from_the_scheduler(usage: Mapping[str, Any]) -> list[str]:
    wall, found = usage["wall_seconds"], []
    if usage["cpu_seconds"] is None or wall <= 0:
        return []
    # Threads may rest inside an inference, the one that calls never does: less than one core means waiting.
    share = usage["cpu_seconds"] / wall
    if share < LEAST_CPU_SHARE:
        found.append(f"the run got the CPU only {share * 100:.0f} % of the time")
    rate = usage["involuntary_switches"] / wall
    if rate > MOST_INVOLUNTARY_SWITCHES_A_SECOND:
        found.append(f"the system interrupted the run {rate:.0f} times a second to run something else")
    return found


def _from_the_clock(snapshots: Sequence[Snapshot]) -> list[str]:
    clocks = [snapshot["clock_mhz"] for snapshot in snapshots if snapshot["clock_mhz"]]
    if len(clocks) < 2 or min(clocks) >= (1 - MOST_CLOCK_DROP) * clocks[0]:
        return []
    return [f"the clock fell from {clocks[0]:.0f} to {min(clocks):.0f} MHz during the run"]


def from_the_firmware(snapshots: Sequence[Snapshot], wanted: Sequence[int]) -> list[str]:
    """The bits among `wanted` that the firmware of a Raspberry Pi set during the run, in one sentence."""
    bits = [int(snapshot["throttled"], 16) for snapshot in snapshots if snapshot["throttled"]]
    if not bits:
        return []
    # The sticky bits of an earlier event are the baseline; those of now always count.
    seen = 0
    for value in bits:
        seen |= (value & 0xF) | (value & ~bits[0])
    words = [text for bit, text in THROTTLE_BITS.items() if bit in wanted and seen >> bit & 1]
    return ["the firmware reports: " + ", ".join(words)] if words else []
