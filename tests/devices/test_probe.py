import json
import os
import sys
import venv
from pathlib import Path

import pytest
from emulated import container
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.here import Here
from edgekit.devices.probe import _LOOK, _SELF, PARTS, _parsed, choose_python, find_pythons, probe
from edgekit.devices.program import ROOT, START
from edgekit.errors import OutsideFailure
from edgekit.ondevice.remote import probe as remote
from edgekit.ondevice.runner import contamination, facts


def python_line(version, *, path="/usr/bin/python3", implementation="cpython"):
    """What a Python says of itself."""
    numbers = [int(part) for part in version.split(".")]
    one = {"path": path, "real": path, "version": numbers, "bits": 64, "implementation": implementation}
    return f"edgekit-python {json.dumps({**one, 'venv': True})}\n"


class Says(Here):
    """A device whose shell gives this answer to everything."""

    name = "ssh://pi@board"

    def __init__(self, folder, text, status=0, errors=""):
        self._answer = folder / "answer"
        self._answer.write_text(text)
        self._command = f"cat {self._answer}; echo '{errors}' >&2; exit {status}"

    def start(self, command, *, silence=60.0):
        assert command[:2] == ["sh", "-c"]
        return super().start(["sh", "-c", self._command], silence=silence)


@pytest.fixture
def own_path(tmp_path, monkeypatch):
    """A folder that is PATH, with nothing in it but what a shell needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "uname", "readlink", "timeout", "true"):
        program = next(p for p in (Path("/usr/bin") / name, Path("/bin") / name) if p.exists())
        (folder / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_same_python_under_several_names_is_found_once(own_path):
    for name in ("python", "python3", "python3.13", "python3.8"):
        (own_path / name).symlink_to(sys.executable)
    here = [one for one in find_pythons(Here()) if Path(one.path).resolve() == Path(sys.executable).resolve()]
    assert len(here) == 1
    assert here[0].version == ".".join(map(str, sys.version_info[:3]))
    assert here[0].minor == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert here[0].bits == 64


def test_pythons_are_found_in_the_users_own_folder_too_and_the_newest_comes_first(own_path, tmp_path):
    for place, version in (
        (own_path / "python3.9", "3.9.18"),
        (tmp_path / ".local/bin/python3.15", "3.15.0"),
    ):
        line = python_line(version, path=str(place)).strip()
        script(place, f"echo '{line}'")
    found = find_pythons(Here())
    assert found[0].path == str(tmp_path / ".local/bin/python3.15")
    assert [one.version for one in found][-1] == "3.9.18"


def test_what_fails_hangs_up_or_prints_something_else_is_no_python(own_path):
    script(own_path / "python3.14", "echo 'pyenv: python3.14: command not found' >&2; exit 127")
    script(own_path / "python3.12", "kill -9 $$")
    script(own_path / "python3.10", "echo 'edgekit-python {\"path\": 3}'; echo 'edgekit-python [}'")
    (own_path / "python3.9").write_text("not to be executed")
    (own_path / "python3.8").mkdir()
    names = {Path(one.path).name for one in find_pythons(Here())}
    assert not names & {"python3.14", "python3.12", "python3.10", "python3.9", "python3.8"}


def test_a_banner_of_the_login_shell_does_no_harm(tmp_path):
    text = "Welcome to board!\nedgekit-system Linux\nbla\n" + python_line("3.11.2")
    (found,) = find_pythons(Says(tmp_path, text))
    assert (found.path, found.version) == ("/usr/bin/python3", "3.11.2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "edgekit-system Linux\n",
            "no CPython 3.8 or newer is there: it has none; "
            "install one there: `sudo apt-get install python3 python3-venv`",
        ),
        (
            "edgekit-system Linux\n" + python_line("2.7.18", path="/usr/bin/python"),
            "it has Python 2.7.18 (/usr/bin/python); "
            "install one there: `sudo apt-get install python3 python3-venv`",
        ),
        (
            "edgekit-system Linux\n" + python_line("3.6.9"),
            "it has Python 3.6.9 (/usr/bin/python3); "
            "install one there: `sudo apt-get install python3.8 python3.8-venv`",
        ),
        ("edgekit-system Linux\n" + python_line("3.9.18", implementation="pypy"), "it has pypy 3.9.18 ("),
        ("edgekit-system Darwin\n" + python_line("3.12.1"), "its system is Darwin, not Linux; "),
    ],
)
def test_a_device_without_a_usable_python_is_refused_with_what_it_has(tmp_path, text, words):
    with pytest.raises(OutsideFailure) as refused:
        find_pythons(Says(tmp_path, text))
    assert words in str(refused.value)
    assert str(refused.value).startswith("ssh://pi@board: ")


def test_a_device_without_a_shell_is_refused_with_what_it_says(tmp_path):
    with pytest.raises(OutsideFailure, match="cannot run `sh` there: sh is not recognized; edgekit needs"):
        find_pythons(Says(tmp_path, "", 1, "sh is not recognized"))


def every_python(monkeypatch):
    """All that this machine has, those of pyenv too."""
    more = sorted(Path("~/.pyenv/versions").expanduser().glob("*/bin"))
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, more), os.environ["PATH"]]))
    return find_pythons(Here())


def test_every_python_of_this_machine_can_look_at_it(monkeypatch):
    pythons = every_python(monkeypatch)
    for python in pythons:
        found = probe(Here(), python.path, pythons=pythons[:1])
        assert found["python"] == python.version
        assert set(facts.gather()) <= set(found)
        assert [one["path"] for one in found["pythons"]] == [pythons[0].path]


def test_the_facts_say_where_edgekit_may_put_files_and_nothing_is_put_there(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "not" / "there"))
    found = probe(Here(), sys.executable)
    assert found["root"] == str(tmp_path / "not" / "there")
    assert found["root_writable"]
    assert found["disk_free_mb"] > 0
    assert list(tmp_path.iterdir()) == []
    assert found["glibc"] == os.confstr("CS_GNU_LIBC_VERSION").split()[1]
    assert (found["kernel_bits"], found["os_bits"]) == (64, 64)
    assert int(found["hwcap"], 16) > 0


def test_a_restart_shows_and_a_second_look_does_not():
    first, second = (probe(Here(), sys.executable)["boot"] for _ in range(2))
    assert first == second
    started = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
    assert first == f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}-{started}"


def test_the_runtimes_of_each_python_are_listed_and_none_is_imported(own_path, tmp_path, monkeypatch):
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    (site / "onnxruntime.py").write_text("raise SystemExit('imported')")
    (site / "onnxruntime-1.19.2.dist-info").mkdir()
    (site / "onnxruntime-1.19.2.dist-info" / "METADATA").write_text("Name: onnxruntime\nVersion: 1.19.2\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'venv' / 'bin'}:{own_path}")
    pythons = [one for one in find_pythons(Here()) if str(tmp_path) in one.path]
    found = probe(Here(), sys.executable, pythons=pythons)
    assert [one["packages"] for one in found["pythons"]] == [{"onnxruntime": "1.19.2"}]
    assert found["runtimes"] == {"onnxruntime": "1.19.2"}


# Codes in use and what they mean, from Raspberry Pi's own table (revision-codes.adoc).
CODES = {
    "900021": ("A+", "1.1", 536.9, "Sony UK", "BCM2835"),
    "a01041": ("2B", "1.1", 1073.7, "Sony UK", "BCM2836"),
    "a22042": ("2B", "1.2", 1073.7, "Embest", "BCM2837"),
    "a02082": ("3B", "1.2", 1073.7, "Sony UK", "BCM2837"),
    "a52082": ("3B", "1.2", 1073.7, "Stadium", "BCM2837"),
    "a32082": ("3B", "1.2", 1073.7, "Sony Japan", "BCM2837"),
    "a020d3": ("3B+", "1.3", 1073.7, "Sony UK", "BCM2837"),
    "902120": ("Zero 2 W", "1.0", 536.9, "Sony UK", "BCM2837"),
    "a03111": ("4B", "1.1", 1073.7, "Sony UK", "BCM2711"),
    "c03115": ("4B", "1.5", 4295.0, "Sony UK", "BCM2711"),
    "d03114": ("4B", "1.4", 8589.9, "Sony UK", "BCM2711"),
    "c03130": ("400", "1.0", 4295.0, "Sony UK", "BCM2711"),
    "b03140": ("CM4", "1.0", 2147.5, "Sony UK", "BCM2711"),
    "d04170": ("5", "1.0", 8589.9, "Sony UK", "BCM2712"),
    "e04171": ("5", "1.1", 17179.9, "Sony UK", "BCM2712"),
    "e041a0": ("CM5 Lite", "1.0", 17179.9, "Sony UK", "BCM2712"),
    "2a02082": ("3B", "1.2", 1073.7, "Sony UK", "BCM2837"),  # warranty voided by overvoltage
}


@pytest.mark.parametrize("code", CODES)
def test_the_revision_codes_of_boards_mean_what_their_maker_says(code):
    found = remote.decode_revision(code)
    assert (found["type"], found["pcb"], found["memory_mb"], found["maker"], found["chip"]) == CODES[code]


@pytest.mark.parametrize("code", ["", "0000", "000e", "1000015", "0xc03115", "c03115\n", "zzzzzz", "800050"])
def test_other_codes_mean_nothing(code):
    assert remote.decode_revision(code) is None


@given(st.integers(0, 2**32 - 1))
def test_a_code_means_a_board_exactly_when_its_flag_is_set_and_its_type_is_known(bits):
    found = remote.decode_revision(f"{bits:x}")
    kind = bits >> 4 & 255
    assert (found is not None) == (
        bool(bits & 1 << 23) and kind < 0x1C and kind not in (5, 7, 0x0B, 0x0F, 0x16)
    )
    assert found is None or json.loads(json.dumps(found)) == found


@given(st.text())
def test_no_text_of_a_board_breaks_the_parsers(text):
    remote.decode_revision(text)
    facts.cpu_parts(text)
    facts.describe_cpu(text)
    facts._revision(f"Revision : {text}")


ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=5,
)
KEYS = st.sampled_from(["path", "real", "version", "bits", "implementation", "venv", "more"])


@given(st.text() | st.dictionaries(KEYS, ANSWERS).map(json.dumps))
def test_no_answer_of_a_python_breaks_the_search(text):
    one = _parsed(text)
    assert one is None or (len(one["version"]) == 3 and one["path"].startswith("/"))


@given(st.dictionaries(st.integers(0, 2**63), st.integers(0, 2**64 - 1), max_size=8), st.binary(max_size=15))
def test_the_auxiliary_vector_is_read_in_pairs(pairs, rest):
    vector = b"".join(number.to_bytes(8, sys.byteorder) for pair in pairs.items() for number in pair)
    assert remote.auxiliary(vector + rest) == pairs


def test_the_auxiliary_vector_of_this_process_holds_the_size_of_a_page():
    page_size = 6  # AT_PAGESZ
    found = remote.auxiliary(Path("/proc/self/auxv").read_bytes())
    assert found[page_size] == os.sysconf("SC_PAGE_SIZE")


def test_the_throttle_bits_of_now_stand_before_those_since_the_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "edgekit_contamination", contamination)
    assert remote.throttle_words("0x50005") == [
        "under-voltage",
        "throttled",
        "under-voltage has occurred",
        "throttling has occurred",
    ]
    assert remote.throttle_words("0x0") == []
    assert remote.throttle_words(None) is remote.throttle_words("0xnone") is None


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({}, "/home/pi/.local/share/edgekit"),
        ({"XDG_DATA_HOME": "/data"}, "/data/edgekit"),
        ({"XDG_DATA_HOME": "data"}, "/home/pi/.local/share/edgekit"),
        ({"XDG_DATA_HOME": ""}, "/home/pi/.local/share/edgekit"),
        ({"XDG_DATA_HOME": "/data", "EDGEKIT_HOME": "/srv/edgekit"}, "/srv/edgekit"),
    ],
)
def test_edgekits_folder_is_the_users_choice_then_that_of_the_system(environment, root):
    assert remote.root_folder(environment, "/home/pi") == root


@pytest.mark.parametrize(
    ("machine", "bits"),
    [
        ("aarch64", 64),
        ("x86_64", 64),
        ("armv8l", 64),
        ("riscv64", 64),
        ("armv7l", 32),
        ("armv6l", 32),
        ("i686", 32),
    ],
)
def test_the_machines_name_tells_the_bits_of_the_kernel(machine, bits):
    assert remote.kernel_bits(machine) == bits


def test_a_limit_on_any_cluster_counts(tmp_path, monkeypatch):
    for core, limit in enumerate((1800000, 1200000)):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        for name, text in (
            ("scaling_max_freq", limit),
            ("cpuinfo_max_freq", 1800000),
            ("scaling_driver", "cpufreq-dt"),
        ):
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(remote, "CPUFREQ", f"{tmp_path}/cpu[0-9]*/cpufreq")
    found = remote._processor(facts)
    assert (found["clock_limited"], found["clock_driver"]) == (True, "cpufreq-dt")
    (tmp_path / "cpu1" / "cpufreq" / "scaling_max_freq").write_text("1800000\n")
    assert remote._processor(facts)["clock_limited"] is False


def facts_with(*pythons, bits=64):
    fields = ("path", "version", "bits", "venv")
    return {"kernel_bits": bits, "pythons": [dict(zip(fields, one, strict=True)) for one in pythons]}


BOOKWORM = ("/usr/bin/python3.11", "3.11.2", 64, True)
TRIXIE = ("/usr/bin/python3.13", "3.13.5", 64, True)


@pytest.mark.parametrize(
    ("pythons", "wanted", "path"),
    [
        ([TRIXIE, BOOKWORM], ["3.11", "3.13"], TRIXIE[0]),
        ([TRIXIE, BOOKWORM], ["3.11"], BOOKWORM[0]),
        ([("/p", "3.9.1", 64, True), ("/q", "3.10.1", 64, True)], [], "/q"),
        ([("/a", "3.11.9", 64, False), BOOKWORM], ["3.11"], BOOKWORM[0]),
        ([("/a", "3.11.9", 32, True), BOOKWORM], ["3.11"], BOOKWORM[0]),
    ],
)
def test_the_newest_python_that_the_bundle_has_packages_for_is_chosen(pythons, wanted, path):
    assert choose_python(facts_with(*pythons), wanted).path == path


def test_a_device_with_other_pythons_is_refused_with_what_it_has_and_what_is_needed():
    with pytest.raises(OutsideFailure) as refused:
        choose_python(facts_with(("/p", "3.9.2", 64, True)), ["3.11", "3.13"])
    assert str(refused.value).startswith(
        "the device has Python 3.9, the bundle needs 3.11 or 3.13; install one there, for example "
        "`sudo apt-get install python3.11 python3.11-venv`, or "
    )


def test_a_32_bit_python_will_do_on_a_32_bit_machine_only():
    narrow = ("/usr/bin/python3.11", "3.11.2", 32, True)
    with pytest.raises(
        OutsideFailure, match=r"has Python 3\.11 in 32 bit only, the bundle needs 64 bit; install"
    ):
        choose_python(facts_with(narrow), ["3.11"])
    assert choose_python(facts_with(narrow, bits=32), ["3.11"]).bits == 32


def test_an_emulated_raspberry_pi_is_seen_as_one_and_as_emulated(tmp_path):
    sources = json.dumps(
        [[Path(part).name, (ROOT / f"{part}.py").read_text()] for part in (*PARTS, "remote/probe")]
    )
    for name, text in (("sources", sources), ("start", START), ("look", _LOOK), ("self", _SELF)):
        (tmp_path / name).write_text(text)
    look = 'sh /look/look "$(cat /look/self)"'
    run = f'python3 -c "$(cat /look/start)" {len(sources)} /usr/bin/python3.11 </look/sources'
    done = container(
        ["sh", "-c", f"{look} && {run}"], mounts={"/look": tmp_path}, environment={"HOME": "/tmp"}
    )
    assert done.returncode == 0, done.stderr
    system, python, found = done.stdout.splitlines()
    assert system == "edgekit-system Linux"
    assert json.loads(python.partition(" ")[2])["path"] == "/usr/bin/python3.11"
    found = json.loads(found)
    assert found["board"] == "Raspberry Pi 4 Model B Rev 1.5"
    assert found["revision_means"]["type"] == "4B"
    assert found["cpu_parts"] == [{"part": "0x41/0xd08", "core": "Cortex-A72", "count": 4}]
    assert (found["arch"], found["kernel_bits"], found["os_bits"], found["glibc"]) == (
        "aarch64",
        64,
        64,
        "2.36",
    )
    assert found["emulated"]
    assert found["container"] == "docker"
    assert (found["memory_total_mb"], found["memory_limit_mb"]) == (4295.0, None)
    assert (found["root"], found["root_writable"]) == ("/tmp/.local/share/edgekit", True)
