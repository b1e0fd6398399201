"""What a count of executed instructions says, in words; never with a time beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.errors import clean, count

Record = Mapping[str, Any]

CLASSES = {
    "simd_fp": "SIMD and floating point",
    "load": "loads",
    "store": "stores",
    "branch": "branches",
    "integer": "integer",
    "other": "other",
}
PRODUCTS = {
    "fma": "floating-point multiply-adds",
    "dot": "int8 dot products",
    "widening": "widening integer products",
}


def count_lines(record: Record) -> list[str]:
    """The count in sentences.

    Args:
        record: of schema "edgekit.count/1".
    """
    found, facts = record["per_inference"], record["facts"]
    total = found["instructions"]
    several = f"{count(record['inferences'], 'inference')} differ by {100 * record['spread']:.2f} %"
    shares = [f"{label} {100 * found[name] / total:.1f} %" for name, label in CLASSES.items()]
    products = [f"{millions(found[name])} {label}" for name, label in PRODUCTS.items() if found[name]]
    moved = f"{found['load_bytes'] / 1e6:.3g} MB loaded and {found['store_bytes'] / 1e6:.3g} MB stored"
    core = clean(facts["core"] or facts["cpu_model"] or facts["arch"])
    return [
        f"{millions(total)} instructions, by {count(record['threads'], 'thread')}; {several}",
        ", ".join(shares),
        ", ".join([*products, moved]),
        f"counted on an emulated {core} by {clean(record['emulator'])}: {clean(record['what_it_is'])}",
    ]


def millions(number: int) -> str:
    """A count: `84.1 million`."""
    value = number / 1e6
    return f"{value:,.0f} million" if value >= 99.95 else f"{value:.3g} million"
