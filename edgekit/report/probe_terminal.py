"""What `edgekit probe` shows on a terminal: what is wrong first, then the device in five groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgekit.errors import clean, count
from edgekit.report.bench_facts import TELLING_FLAGS, machine_text
from edgekit.report.lines import heading, line, warnings
from edgekit.report.words import listed

Facts = Mapping[str, Any]
Rows = list[tuple[str, str]]

LABEL_WIDTH = 20


def print_probe(
    name: str, facts: Facts, found: Sequence[str], console: Console, *, target: str | None = None
) -> None:
    """Print what a device is.

    Args:
        name: what the user calls it.
        facts: from `edgekit.devices.probe.probe`.
        found: what is wrong with it, a sentence each.
        console: where to.
        target: what it was held against.
    """
    console.print()
    line(console, f"{clean(name)}: {machine_text(facts)}", "bold")
    warnings(console, found)
    if target and not found:
        line(console, f"it is what {target} says, as far as its system tells", "green")
    groups = {
        "Board": _board(facts),
        "Processor": _processor(facts),
        "Clocks and heat": _clocks(facts),
        "System": _system(facts),
        "Python and runtimes": _pythons(facts),
    }
    for title, rows in groups.items():
        heading(console, title)
        console.print(_grid(rows))


def _grid(rows: Rows) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=LABEL_WIDTH, style="dim")
    grid.add_column(overflow="fold")
    for label, value in rows:
        if value:
            grid.add_row(label, Text(clean(value)))
    return grid


def _board(facts: Facts) -> Rows:
    means = facts["revision_means"]
    revision = facts["revision"] or ""
    if means:
        words = [f"type {means['type']}", f"board {means['pcb']}", means["chip"], means["maker"]]
        revision += f": {', '.join(word for word in words if word)}"
    around = [
        _said(facts["container"], "in a container ({})"),
        _said(facts["virtual_machine_kind"], "in a virtual machine ({})"),
        _said(facts["emulated_how"], "emulated: {}"),
    ]
    return [
        ("model", facts["board"] or "its system does not say"),
        ("revision", revision),
        ("memory", _memory(facts, means)),
        ("swap", _mb(facts["swap_mb"]) if facts["swap_mb"] else "none"),
        ("runs", "; ".join(sign for sign in around if sign)),
        ("fingerprint", facts["fingerprint"][:16]),
    ]


def _memory(facts: Facts, means: Mapping[str, Any] | None) -> str:
    parts = [
        _mb(facts["memory_total_mb"]),
        _said(facts["memory_available_mb"], "{:.0f} MB available"),
        _said(means and means["memory_mb"], "sold with {:.0f} MB"),
        _said(facts["memory_limit_mb"], "limited to {:.0f} MB"),
    ]
    return ", ".join(part for part in parts if part)


def _processor(facts: Facts) -> Rows:
    parts = [f"{part['count']} x {part['core'] or part['part']}" for part in facts["cpu_parts"]]
    telling = [flag for flag in facts["cpu_flags"] if flag in TELLING_FLAGS]
    capabilities = [facts["hwcap"] or "", facts["hwcap2"] or ""]
    bits = f"{facts['arch']}, a kernel of {facts['kernel_bits']} bit"
    return [
        ("cores", " and ".join(parts) or f"{count(facts['cores'], 'core')} of {facts['cpu_model']}"),
        ("of which usable", "all" if facts["usable_cores"] == facts["cores"] else str(facts["usable_cores"])),
        ("architecture", bits),
        ("what matters", " ".join(telling) or "nothing beyond the base of the architecture"),
        ("HWCAP, HWCAP2", " ".join(capabilities).strip()),
    ]


def _clocks(facts: Facts) -> Rows:
    clock = [
        _said(facts["min_clock_mhz"], "{:.0f} MHz at least"),
        _said(facts["max_clock_mhz"], "{:.0f} MHz at most"),
        _said(facts["clock_limit_mhz"] if facts["clock_limited"] else None, "limited to {:.0f} MHz"),
        _said(facts["clock_mhz"], "{:.0f} MHz now"),
    ]
    firmware = facts["throttled_means"]
    throttled = "" if firmware is None else f"{facts['throttled']}: {listed(firmware) or 'never'}"
    temperature = facts["temperature_c"]
    return [
        ("clock", ", ".join(part for part in clock if part) or "its system does not say"),
        ("governor", facts["governor"] or ""),
        ("power mode", facts["power_mode"] or ""),
        ("temperature", "its system does not say" if temperature is None else f"{temperature:.1f} °C"),
        ("slowed down", throttled),
        ("fan", facts["fan"] or ""),
        ("load average", _said(facts["load_average"], "{:.2f}")),
    ]


def _system(facts: Facts) -> Rows:
    services = ["systemd" if facts["systemd"] else "no systemd"]
    services += ["a manager for this user"] if facts["systemd_user"] else []
    services += ["which stays after logout"] if facts["linger"] else []
    bits = _said(facts["os_bits"], "{} bit")
    place = "" if facts["root_writable"] else ", which may not be written to"
    return [
        ("system", ", ".join(part for part in (facts["os"] or facts["system"], bits) if part)),
        ("kernel", facts["kernel"]),
        ("Jetson Linux", facts["jetson_linux"] or ""),
        ("C library", facts["libc"] or "unknown"),
        ("services", ", ".join(services)),
        ("user", facts["user"]),
        ("edgekit's folder", f"{facts['root']}{place}"),
        ("free there", _mb(facts["disk_free_mb"])),
    ]


def _pythons(facts: Facts) -> Rows:
    return [(f"Python {one['version']}", _python(one)) for one in facts["pythons"]]


def _python(one: Mapping[str, Any]) -> str:
    packages = one["packages"]
    has = [f"{name} {version}" for name, version in (packages or {}).items()]
    parts = [
        one["path"],
        f"{one['bits']} bit",
        "" if one["venv"] else "makes no environments with pip (`sudo apt-get install python3-venv`)",
        "its packages cannot be listed" if packages is None else ", ".join(has) or "no runtime",
    ]
    return "; ".join(part for part in parts if part)


def _said(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)


def _mb(value: float | None) -> str:
    return _said(value, "{:.0f} MB")
