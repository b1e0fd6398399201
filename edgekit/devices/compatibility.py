"""Whether the packages of a bundle can run on a device, said before they run; what to do after a crash."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from edgekit.devices.known_bad import TABLE, KnownBad
from edgekit.errors import EdgekitError, OutsideFailure

if TYPE_CHECKING:
    from edgekit.devices.probe import Facts, PythonThere

NARROW = {"aarch64": "armv7l", "x86_64": "i686"}  # what a 32-bit userland is called, whatever the kernel says
# What newer builds use and older cores lack, in the order in which the cores got it.
NEWER = {
    "aarch64": ("atomics", "asimdhp", "asimddp", "i8mm", "sve"),
    "x86_64": ("sse4_2", "avx", "fma", "avx2", "avx512f"),
}
AFTER = {
    "SIGSEGV": "it is broken there or was installed in part",
    "SIGBUS": "a file of it is damaged, or the storage is",
    "SIGABRT": "it gave up by itself",
    "SIGFPE": "it is broken there",
}
PIN = "pin another version of it in the target's `requirements` and build again"


def refuse_known_bad(requirements: Mapping[str, str], facts: Facts, python: PythonThere) -> None:
    """Refuse packages that are known not to run on such a device.

    Args:
        requirements: exact versions by package.
        facts: of the device, see `edgekit.devices.probe`.
        python: of the device, that the bundle will run in.

    Raises:
        OutsideFailure: with who saw it, and what to install instead.
    """
    arch = userland(facts["arch"], python.bits)
    for bad in TABLE:
        if _is_meant(bad, requirements, facts, arch) and _lacks(bad, facts):
            raise OutsideFailure(
                f"{bad.what}{_why(bad, facts)} ({bad.source.partition(';')[0]})",
                where=f"{bad.package} {requirements[bad.package]}",
                todo=_instead(bad),
            )


def userland(arch: str, bits: int) -> str:
    """The architecture whose wheels a Python takes: a 64-bit kernel may carry a 32-bit system."""
    return NARROW.get(arch, arch) if bits == 32 else arch


def advice_after_crash(requirements: Mapping[str, str], facts: Facts, signal_name: str) -> str:
    """What to do about a runtime that was ended by a signal on the device.

    Args:
        requirements: what the bundle installed there, exact versions by package.
        facts: of the device.
        signal_name: `SIGILL`.
    """
    if signal_name == "SIGKILL":
        return (
            "the system ended it, most likely for want of memory: free some, or build for less (`--memory`)"
        )
    if signal_name != "SIGILL":
        why = AFTER.get(signal_name, "it crashed")
        return f"{why}: delete the bundle's `venv` there and try again, or {PIN}"
    suspects = [bad for bad in TABLE if bad.lacks and _is_meant(bad, requirements, facts, facts["arch"])]
    if suspects:  # the flags were not known before, or say too much
        return f"{suspects[0].package} {suspects[0].what}: {_instead(suspects[0])}"
    missing = [flag for flag in NEWER.get(facts["arch"], ()) if flag not in (facts.get("cpu_flags") or ())]
    without = f" ({_core(facts)} has no {', '.join(missing)})" if missing else ""
    named = ", ".join(f"{name} {version}" for name, version in sorted(requirements.items()))
    return f"one of {named} needs instructions that this CPU lacks{without}: {PIN}"


def with_advice(failed: EdgekitError, requirements: Mapping[str, str], facts: Facts) -> EdgekitError:
    """The same refusal; where it tells of a crash, with what to do about it."""
    match = re.search(r"\bcrashed with (SIG[A-Z0-9]+)", failed.what)
    if not match:
        return failed
    advice = advice_after_crash(requirements, facts, match.group(1))
    return type(failed)(f"the runtime crashed with {match.group(1)}", where=failed.where, todo=advice)


def _is_meant(bad: KnownBad, requirements: Mapping[str, str], facts: Facts, arch: str) -> bool:
    """Whether a row is about these packages on such a board, the flags of its CPU aside."""
    pins = {bad.package: bad.versions, **bad.beside}
    if not all(
        name in requirements and _is_in(requirements[name], versions) for name, versions in pins.items()
    ):
        return False
    if bad.arch and arch not in bad.arch:
        return False
    if bad.glibc_below and not (facts.get("glibc") and Version(facts["glibc"]) < Version(bad.glibc_below)):
        return False
    return not bad.board or str(facts.get("board") or "").startswith(bad.board)


def _is_in(version: str, versions: str) -> bool:
    # `2.4.0+cpu` is a build of 2.4.0, and pre-releases have the faults of what follows.
    return SpecifierSet(versions).contains(Version(version).public, prereleases=True)


def _lacks(bad: KnownBad, facts: Facts) -> bool:
    """Whether the CPU lacks what the row asks for; a CPU whose flags are unknown is given the benefit."""
    flags: Sequence[Any] = facts.get("cpu_flags") or ()
    return not bad.lacks or (bool(flags) and bad.lacks not in flags)


def _why(bad: KnownBad, facts: Facts) -> str:
    if bad.lacks:
        return f" on CPUs without `{bad.lacks}`, as {_core(facts)}"
    if bad.glibc_below:
        return f", this device has {facts['glibc']}"
    return f" beside {', '.join(f'{name} {pin}' for name, pin in bad.beside.items())}" if bad.beside else ""


def _core(facts: Facts) -> str:
    name = facts.get("core") or facts.get("cpu_model")
    return f"this {name}" if name else "this one"


def _instead(bad: KnownBad) -> str:
    if "system" in bad.instead.partition(",")[0]:
        return f"install {bad.instead}"
    return f"pin {bad.instead} in the target's `requirements` and build again"
