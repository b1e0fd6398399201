import re
import signal
from pathlib import Path

import pytest
from emulated import container
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from edgekit.devices.compatibility import advice_after_crash, refuse_known_bad, userland, with_advice
from edgekit.devices.known_bad import TABLE
from edgekit.devices.probe import PythonThere
from edgekit.errors import OutsideFailure
from edgekit.target import load_target

TARGETS = sorted(path.stem for path in (Path(__file__).parents[2] / "targets").glob("*.yaml"))
PYTHON = PythonThere(path="/usr/bin/python3", version="3.11.2", bits=64)
PI4 = {
    "arch": "aarch64",
    "cpu_flags": ["fp", "asimd", "evtstrm", "crc32", "cpuid"],
    "core": "Cortex-A72",
    "board": "Raspberry Pi 4 Model B Rev 1.4",
    "glibc": "2.36",
}
PI5 = {**PI4, "cpu_flags": [*PI4["cpu_flags"], "atomics", "asimdhp", "asimddp"], "core": "Cortex-A76"}


def one_of(versions):
    """A version that the specifier holds."""
    tried = ["0.1", *(one.version for one in SpecifierSet(versions))]
    return next(version for version in tried if SpecifierSet(versions).contains(version))


def just_such(bad):
    """The requirements and the device that a row speaks of."""
    pins = {name: one_of(versions) for name, versions in {bad.package: bad.versions, **bad.beside}.items()}
    older = bad.glibc_below and f"2.{Version(bad.glibc_below).minor - 1}"
    facts = {
        "arch": bad.arch[0] if bad.arch else "aarch64",
        "cpu_flags": ["fp"],
        "core": "Cortex-A72",
        "board": bad.board,
        "glibc": older or "2.36",
    }
    return pins, facts


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: f"{bad.package}{bad.versions}")
def test_each_known_bad_build_is_refused_with_who_saw_it_and_what_to_install(bad):
    pins, facts = just_such(bad)
    with pytest.raises(OutsideFailure) as refused:
        refuse_known_bad(pins, facts, PYTHON)
    line = str(refused.value)
    assert line.startswith(f"{bad.package} {pins[bad.package]}: ")
    assert bad.what in line
    assert bad.instead in line
    assert bad.source.partition(";")[0] in line


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: f"{bad.package}{bad.versions}")
def test_each_row_has_an_issue_or_says_what_was_looked_at(bad):
    assert re.search(r"^[\w.-]+/[\w.-]+#\d+|names of the wheels in the index", bad.source)


@pytest.mark.parametrize(
    "bad", [bad for bad in TABLE if bad.lacks], ids=lambda bad: f"{bad.package}{bad.versions}"
)
def test_a_cpu_that_has_the_instructions_takes_the_build(bad):
    pins, facts = just_such(bad)
    refuse_known_bad(pins, {**facts, "cpu_flags": ["fp", bad.lacks]}, PYTHON)


@pytest.mark.parametrize(
    "bad", [bad for bad in TABLE if bad.lacks], ids=lambda bad: f"{bad.package}{bad.versions}"
)
def test_a_cpu_whose_flags_are_not_known_is_given_a_try(bad):
    pins, facts = just_such(bad)
    refuse_known_bad(pins, {**facts, "cpu_flags": []}, PYTHON)


@pytest.mark.parametrize(
    "bad", [bad for bad in TABLE if bad.arch], ids=lambda bad: f"{bad.package}{bad.versions}"
)
def test_another_architecture_takes_the_build(bad):
    pins, facts = just_such(bad)
    refuse_known_bad(pins, {**facts, "arch": "riscv64"}, PYTHON)


@pytest.mark.parametrize("name", TARGETS)
def test_the_pins_of_every_target_run_on_its_own_board(name):
    target = load_target(name)
    # A profile names what matters; whatever has AVX2 has what came before it.
    flags = [*target.profile.isa, *(["sse4_2", "avx"] if "avx2" in target.profile.isa else [])]
    facts = {
        "arch": target.profile.arch,
        "cpu_flags": flags,
        "core": target.profile.core,
        "board": target.profile.board,
        "glibc": target.glibc,
    }
    for runtime in target.runtimes:
        for version in target.python:
            refuse_known_bad(
                target.requirements_for(runtime), facts, PythonThere("python3", f"{version}.0", 64)
            )


def test_a_raspberry_pi_5_takes_what_a_4_does_not():
    pins = {"onnxruntime": "1.21.0", "numpy": "2.2.6"}
    refuse_known_bad(pins, PI5, PYTHON)
    with pytest.raises(OutsideFailure, match="on CPUs without `asimdhp`, as this Cortex-A72"):
        refuse_known_bad(pins, PI4, PYTHON)


@pytest.mark.parametrize(("version", "status"), [("1.21.0", 128 + signal.SIGILL), ("1.21.1", 0)])
def test_the_refused_build_dies_on_an_emulated_cortex_a72_and_the_advised_one_does_not(version, status):
    pins = {"onnxruntime": version, "numpy": "2.2.6"}
    done = container(
        ["python3", "-c", "import onnxruntime"], [f"{name}=={pin}" for name, pin in pins.items()]
    )
    assert done.returncode == status
    if status:
        with pytest.raises(OutsideFailure, match="compiled for Armv8"):
            refuse_known_bad(pins, PI4, PYTHON)
    else:
        refuse_known_bad(pins, PI4, PYTHON)


def test_a_cpu_build_of_a_bad_version_is_bad_too():
    with pytest.raises(OutsideFailure, match=r"^torch 2\.4\.0\+cpu: dies of SIGILL at import"):
        refuse_known_bad({"torch": "2.4.0+cpu"}, PI4, PYTHON)


def test_a_32_bit_python_on_a_64_bit_kernel_is_a_32_bit_userland():
    assert userland("aarch64", 32) == "armv7l"
    assert userland("aarch64", 64) == "aarch64"
    narrow = PythonThere(path="/usr/bin/python3", version="3.11.2", bits=32)
    with pytest.raises(OutsideFailure, match="install the 64-bit edition of the device's system"):
        refuse_known_bad({"onnxruntime": "1.31.1", "numpy": "2.4.6"}, PI4, narrow)


def test_after_an_illegal_instruction_the_advice_names_the_known_case():
    advice = advice_after_crash({"onnxruntime": "1.21.0"}, {**PI4, "cpu_flags": []}, "SIGILL")
    assert advice.startswith("onnxruntime is compiled for Armv8.2")
    assert "pin onnxruntime 1.21.1 or newer" in advice


def test_after_an_unknown_illegal_instruction_it_names_what_the_cpu_lacks():
    advice = advice_after_crash({"onnxruntime": "1.99.0", "numpy": "2.4.6"}, PI4, "SIGILL")
    assert "numpy 2.4.6, onnxruntime 1.99.0" in advice
    assert "this Cortex-A72 has no atomics, asimdhp, asimddp, i8mm, sve" in advice


@pytest.mark.parametrize(
    ("name", "word"),
    [("SIGKILL", "memory"), ("SIGSEGV", "`venv`"), ("SIGBUS", "damaged"), ("SIGXCPU", "crashed")],
)
def test_after_another_signal_the_advice_is_another(name, word):
    assert word in advice_after_crash({"onnxruntime": "1.31.1"}, PI4, name)


def test_the_runners_own_line_about_a_crash_gets_the_advice_and_others_stay_as_they_are():
    line = "the runtime crashed with SIGILL: this build needs instructions that this CPU lacks"
    failed = OutsideFailure(line, where="ssh://pi@pi4", todo="install another version of it")
    said = str(with_advice(failed, {"onnxruntime": "1.21.0"}, PI4))
    assert said.startswith(
        "ssh://pi@pi4: the runtime crashed with SIGILL; onnxruntime is compiled for Armv8.2"
    )
    other = OutsideFailure("no room", where="ssh://pi@pi4")
    assert with_advice(other, {"onnxruntime": "1.21.0"}, PI4) is other
