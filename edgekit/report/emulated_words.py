"""What a look at an emulated device says: that a bundle works on that instruction set, never how fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.cost import Cost, Figure, Verdict, cost_from_dict, judge
from edgekit.errors import clean

Record = Mapping[str, Any]


def emulated_cost(record: Record, manifest: Record) -> Cost:
    """The figures that are real under emulation; memory between its bounds."""
    built, memory = cost_from_dict(manifest["cost"]), record["memory"]
    where = f"emulated {clean(record['bundle']['target'])}"
    found = Cost(
        drop=built.drop,
        class_drop=built.class_drop,
        size_mb=Figure(value=memory["artifact_mb"], how="measured", source="bytes of the artifact's files"),
    )
    if memory["peak_rss_mb"] is None:
        return found
    peak = Figure(
        value=memory["peak_rss_mb"],
        how="emulated",
        source=f"{where}, {memory['how']}",
        low=memory["at_least_rss_mb"],
        high=memory["peak_rss_mb"],
    )
    return found | Cost(peak_memory_mb=peak)


def emulated_verdicts(record: Record, manifest: Record) -> list[Verdict]:
    """How the figures stand against the limits that emulation can decide: all but latency."""
    budget = cost_from_dict(manifest["budget"])
    decidable = Cost(**{name: limit for name, limit in budget.known() if not name.startswith("latency")})
    return judge(emulated_cost(record, manifest), decidable)


def emulated_lead(record: Record) -> str:
    """What was shown, in one sentence."""
    check, facts = record["check"], record["facts"]
    lowest = check["lowest_snr_db"]
    agreement = "exactly" if lowest is None else f"to {lowest:.1f} dB"
    core = clean(facts["core"] or facts["cpu_model"] or facts["arch"])
    return (
        f"on an emulated {core} the bundle installs, starts, and its {check['samples']} golden samples "
        f"agree {agreement}"
    )


NO_TIME = "no time was measured: an emulator's says nothing about the device"
