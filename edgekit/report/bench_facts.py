"""The facts of a benchmark's machine as names and values; what the system does not tell is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.errors import clean, count

Record = Mapping[str, Any]

# What makes int8, float16 or wide vectors fast; the rest of the flags tells nothing about a network.
TELLING_FLAGS = frozenset(
    "asimd neon asimddp asimdhp fphp i8mm sve bf16 sse4_2 avx avx2 fma f16c avx512f avx512_vnni avx_vnni "
    "amx_int8".split()
)


def machine_text(facts: Record) -> str:
    """The machine in a few words: board or processor, architecture, cores."""
    name = facts["board"] or facts["cpu_model"] or "unknown machine"
    core = f"{clean(facts['core'])} core" if facts["core"] else "core"
    return f"{clean(name)}, {clean(facts['arch'])}, {count(facts['cores'], core)}"


def state_text(result: Record) -> str:
    """How the machine was set and how warm it became: `governor performance, 52.1 °C at the end`."""
    governor, last = result["facts"]["governor"], result["snapshots"][-1]
    parts = [f"governor {governor}"] if governor else []
    if last["temperature_c"] is not None:
        parts.append(f"{last['temperature_c']:.1f} °C at the end")
    return clean(", ".join(parts))


def facts_rows(result: Record) -> list[tuple[str, str]]:
    """The machine and its state, name and value; what the system does not tell is left out."""
    facts = result["facts"]
    telling = [flag for flag in facts["cpu_flags"] if flag in TELLING_FLAGS]
    rows = [
        ("board", facts["board"]),
        ("processor", facts["cpu_model"]),
        ("architecture", facts["arch"]),
        ("cores", f"{facts['cores']}, of which {facts['usable_cores']} may be used"),
        ("instructions that matter", " ".join(telling)),
        ("highest clock", _unit(facts["max_clock_mhz"], "MHz")),
        ("clock governor", facts["governor"]),
        ("memory", _unit(facts["memory_total_mb"], "MB")),
        *_state_rows(result["snapshots"]),
        ("system", " ".join(str(facts[key]) for key in ("os", "system", "kernel") if facts[key])),
        ("C library", facts["libc"]),
        ("Python", f"{facts['python']}, {facts['python_bits']} bit"),
        *((name, version) for name, version in facts["packages"].items()),
        ("virtual machine", "yes" if facts["virtual_machine"] else "no sign of one"),
        ("emulated", facts["emulated_how"] if facts["emulated"] else "no sign of it"),
        ("fingerprint", facts["fingerprint"][:16]),
    ]
    return [(name, clean(value)) for name, value in rows if value]


def _state_rows(snapshots: Sequence[Record]) -> list[tuple[str, str]]:
    wanted = (
        ("clock", "clock_mhz", "MHz"),
        ("temperature", "temperature_c", "°C"),
        ("load average", "load_average", ""),
        ("throttle bits", "throttled", ""),
    )
    rows = []
    for name, key, unit in wanted:
        before, after = (_unit(snapshots[place][key], unit) for place in (0, -1))
        if before and after:
            rows.append((name, f"{before} before, {after} after"))
    return rows


def _unit(value: float | str | None, unit: str) -> str:
    if value is None:
        return ""
    shown = value if isinstance(value, str) else f"{value:.{0 if abs(value) >= 100 else 2}f}"
    return f"{shown} {unit}".strip()
