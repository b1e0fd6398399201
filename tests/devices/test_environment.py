import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tinywheels import tiny_wheel

from edgekit.devices.device import ConnectionLost
from edgekit.devices.environment import make_environment
from edgekit.devices.here import Here
from edgekit.devices.program import call, opened
from edgekit.devices.wheels import installer_for, wheels_for
from edgekit.errors import OutsideFailure
from edgekit.ondevice.remote.pip import complaint, settings

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
PARTS = ("remote/pip",)


class Unplugged(Here):
    """This machine without a network."""

    def start(self, command, **options):
        return super().start(["unshare", "--net", *command], **options)


def make(root, requirements, *, wheels=None, device=None, said=None, folder="bundles/one"):
    lines = [] if said is None else said
    return make_environment(
        device or Here(),
        sys.executable,
        str(root),
        folder,
        requirements,
        wheels=wheels,
        system_packages=False,
        detail=lines.append,
    )


def wheels_in(folder):
    return {path.name: path for path in folder.glob("*.whl")}


def look(root, requirements, folder="bundles/one"):
    """The Python of the complete environment; None when there is none."""
    wanted = {"requirements": requirements, "system_packages": False, "offline": True}
    place = str(root / folder)
    given = [json.dumps(wanted).encode()]
    return call(Here(), sys.executable, "environment", [place, "look"], given=given, parts=PARTS)["python"]


def imports(python, code):
    return subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_device_without_a_network_installs_the_real_wheels_and_runs_them(tmp_path):
    pins = {"onnxruntime": "1.31.1", "numpy": "2.4.6"}
    wheels = wheels_for(pins, arch="x86_64", python=PYTHON, glibc="2.36")
    said = []
    python = make(tmp_path, pins, wheels=wheels, device=Unplugged(), said=said)
    assert python == str(tmp_path / "bundles/one/venv/bin/python")
    assert imports(python, "import onnxruntime; print(onnxruntime.__version__)") == "1.31.1"
    assert "installing numpy==2.4.6, onnxruntime==1.31.1" in said
    record = json.loads((tmp_path / "bundles/one/venv/edgekit.json").read_text())
    assert record["packages"].items() >= pins.items()


def test_a_complete_environment_is_used_again_at_once(tmp_path):
    tiny_wheel(tmp_path / "w", "one", "1.0.0")
    wheels = wheels_in(tmp_path / "w")
    python = make(tmp_path, {"one": "1.0.0"}, wheels=wheels)
    shutil.rmtree(tmp_path / "bundles/one/wheels")
    said = []
    assert make(tmp_path, {"one": "1.0.0"}, wheels=wheels, said=said) == python
    assert said == []
    assert not (tmp_path / "bundles/one/wheels").exists()


def test_other_requirements_make_it_anew(tmp_path):
    for version in ("1.0.0", "2.0.0"):
        tiny_wheel(tmp_path / "w", "one", version)
    wheels = wheels_in(tmp_path / "w")
    make(tmp_path, {"one": "1.0.0"}, wheels=wheels)
    python = make(tmp_path, {"one": "2.0.0"}, wheels=wheels)
    assert imports(python, "import one; print(one.VERSION)") == "2.0.0"


def test_an_environment_whose_python_does_not_start_any_more_is_made_anew(tmp_path):
    tiny_wheel(tmp_path / "w", "one", "1.0.0")
    python = make(tmp_path, {"one": "1.0.0"}, wheels=wheels_in(tmp_path / "w"))
    Path(python).unlink()
    Path(python).symlink_to("/usr/bin/python-that-was-removed")
    make(tmp_path, {"one": "1.0.0"}, wheels=wheels_in(tmp_path / "w"))
    assert imports(python, "import one; print(one.VERSION)") == "1.0.0"


def test_what_the_packages_need_is_installed_too_and_must_have_come_along(tmp_path):
    tiny_wheel(tmp_path / "w", "top", "1.0.0", needs=["below>=2"])
    with pytest.raises(OutsideFailure) as refused:
        make(tmp_path, {"top": "1.0.0"}, wheels=wheels_in(tmp_path / "w"))
    assert "no wheel of below>=2 came along that fits Python" in str(refused.value)
    assert not (tmp_path / "bundles/one/venv").exists()
    tiny_wheel(tmp_path / "w", "below", "2.5")
    python = make(tmp_path, {"top": "1.0.0"}, wheels=wheels_in(tmp_path / "w"))
    assert imports(python, "import below; print(below.VERSION)") == "2.5"


def test_with_a_network_the_devices_own_index_is_asked_and_its_other_habits_are_not_heeded(
    tmp_path, monkeypatch
):
    tiny_wheel(tmp_path / "index", "top", "1.0.0", needs=["below"])
    tiny_wheel(tmp_path / "index", "below", "2.5")
    home = tmp_path / "home"
    home.mkdir()
    config = tmp_path / "pip.conf"
    config.write_text(
        f"[global]\nuser = true\nno-index = true\nfind-links = {tmp_path / 'index'}\n"
        f"constraint = {tmp_path / 'missing'}\n"
        f"[install]\nuser = true\ntarget = {home / 'target'}\nbreak-system-packages = true\n"
    )
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_REQUIRE_HASHES", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(home))
    python = make(tmp_path, {"top": "1.0.0"})
    monkeypatch.undo()
    assert imports(python, "import below, top; print(top.VERSION)") == "1.0.0"
    assert not any(path.suffix == ".py" for path in home.rglob("*"))


def test_a_device_that_reaches_no_index_is_told_of_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(OutsideFailure) as refused:
        make(tmp_path, {"numpy": "2.4.6"}, device=Unplugged())
    assert str(refused.value) == (
        "local: the package index cannot be reached; add `--offline` to send the packages along, or give the "
        "device a network"
    )
    assert not (tmp_path / "bundles/one/venv").exists()


def test_a_version_that_the_index_has_not_for_this_device_is_named_with_the_newest_one(tmp_path, monkeypatch):
    tiny_wheel(tmp_path / "index", "one", "1.0.0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    with pytest.raises(
        OutsideFailure, match=r"no wheel of one==9.9.9 fits Python .*, the newest that does is 1.0.0; "
    ):
        make(tmp_path, {"one": "9.9.9"})


def test_a_full_disk_is_said_and_nothing_half_installed_stays(tmp_path):
    wheel = tiny_wheel(tmp_path / "w", "large", "1.0.0", size=9_000_000)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", root], check=True)
    try:
        with pytest.raises(OutsideFailure) as refused:
            make(root, {"large": "1.0.0"}, wheels={wheel.name: wheel})
        assert "no room left on the disk; free some space on the device: " in str(refused.value)
        assert not (root / "bundles/one/venv").exists()
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_program_that_is_killed_in_the_middle_leaves_nothing_complete_and_the_next_one_makes_it(tmp_path):
    wheel = tiny_wheel(tmp_path / "w", "large", "1.0.0", size=40_000_000)
    place = tmp_path / "bundles/one"
    installer = installer_for(PYTHON)
    (place / "wheels").mkdir(parents=True)
    for path in (wheel, installer):
        shutil.copy(path, place / "wheels")
    wanted = {"requirements": {"large": "1.0.0"}, "system_packages": False, "offline": True}
    wanted["installer"] = installer.name
    with opened(Here(), sys.executable, "environment", [str(place), "make"], parts=PARTS) as process:
        process.write(json.dumps(wanted).encode())
        process.end_input()
        heard = b""
        while b"installing large" not in heard:
            heard += process.read()[1]
        process.stop()
    assert (place / "venv").exists()
    assert look(tmp_path, {"large": "1.0.0"}) is None
    python = make(tmp_path, {"large": "1.0.0"}, wheels={wheel.name: wheel})
    assert imports(python, "import large; print(large.VERSION)") == "1.0.0"


def test_two_that_need_the_same_environment_at_once_make_it_once(tmp_path):
    wheel = tiny_wheel(tmp_path / "w", "large", "1.0.0", size=20_000_000)
    said = []
    with ThreadPoolExecutor() as pool:
        made = [
            pool.submit(make, tmp_path, {"large": "1.0.0"}, wheels={wheel.name: wheel}, said=said)
            for _ in "ab"
        ]
        assert len({one.result() for one in made}) == 1
    assert said.count("making the environment") == 1


def test_an_environment_without_packages_is_empty(tmp_path):
    python = make(tmp_path, {}, wheels={})
    assert imports(python, "import sys; print(sys.prefix != sys.base_prefix)") == "True"


class BreaksOnce(Here):
    """A device whose connection breaks once while the environment is made; what runs there ends with it."""

    def __init__(self):
        self.reconnected = 0

    def start(self, command, **options):
        process = super().start(command, **options)
        if command[-1] == "make" and not self.reconnected:
            read = process.read

            def broken():
                piece = read()
                if piece and b"installing" in piece[1]:
                    raise ConnectionLost("the connection broke", where=self.name)
                return piece

            process.read = broken
        return process

    def reconnect(self, **options):
        super().reconnect(**options)
        self.reconnected += 1


def test_a_connection_that_breaks_is_taken_up_again(tmp_path):
    tiny_wheel(tmp_path / "w", "one", "1.0.0")
    device, said = BreaksOnce(), []
    python = make(tmp_path, {"one": "1.0.0"}, wheels=wheels_in(tmp_path / "w"), device=device, said=said)
    assert device.reconnected == 1
    assert "the connection broke; connecting again" in said
    assert imports(python, "import one; print(one.VERSION)") == "1.0.0"


@pytest.mark.parametrize(
    ("first", "second", "variables", "found"),
    [
        ("[global]\nindex-url = https://mirror", "", {}, {"index-url": "https://mirror"}),
        ("[global]\ntimeout = 5", "[global]\ntimeout = 7", {}, {"timeout": "7"}),
        ("[install]\ntimeout = 5", "[global]\ntimeout = 7", {}, {"timeout": "5"}),
        ("[install]\ntimeout = 5", "", {"PIP_TIMEOUT": "9"}, {"timeout": "9"}),
        ("[global]\nfind_links =\n  /a\n  /b", "", {"PIP_FIND_LINKS": ""}, {"find-links": "\n/a\n/b"}),
        ("[global]\nuser = true\ntarget = /x", "[install]\nconstraint = /c", {"PIP_USER": "1"}, {}),
        ("no configuration", "[list]\nindex-url = https://a", {}, {}),
    ],
)
def test_of_pips_settings_those_of_the_index_are_kept(tmp_path, first, second, variables, found):
    files = [tmp_path / "first", tmp_path / "second", tmp_path / "missing"]
    files[0].write_text(first)
    files[1].write_text(second)
    assert settings(list(map(str, files)), variables) == found


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'",
            "network",
        ),
        ("SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate is not yet valid')", "clock"),
        ("ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)", "fit"),
        ("ERROR: Cannot install a==1 and b==2 because these have conflicting dependencies.", "other"),
        ("", "other"),
    ],
)
def test_what_pip_complains_of_is_understood(said, kind):
    assert complaint(said).kind == kind
    assert complaint(said).what
