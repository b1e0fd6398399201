import json
import os
import subprocess
import sys

import pytest
from bundles import packed
from hypothesis import given
from hypothesis import strategies as st
from tinywheels import tiny_wheel

from edgekit.bundle.manifest import read_manifest
from edgekit.devices import pip_here, wheels
from edgekit.devices.wheel_tags import Place, fits
from edgekit.devices.wheels import in_bundle, installer_for, wheels_for
from edgekit.errors import OutsideFailure

PI = {"arch": "aarch64", "python": "3.11.2", "glibc": "2.36"}
SMALL = {"markupsafe": "3.0.2"}  # 24 KB, compiled
FETCH = """
import json, sys
from edgekit.devices.wheels import wheels_for
from edgekit.errors import EdgekitError
requirements, place = json.loads(sys.argv[1])
try:
    print(json.dumps(sorted(wheels_for(requirements, **place))))
except EdgekitError as error:
    sys.exit(str(error))
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def fetch_elsewhere(requirements, place=PI, **environment):
    """In a process of its own, for another environment."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps([requirements, place])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()


def from_folder(folder):
    """The environment of a user whose only index is a folder."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}


def test_the_wheels_are_for_the_device_and_not_for_this_machine():
    found = wheels_for(SMALL, **PI)
    (name,) = found
    assert name.startswith("MarkupSafe-3.0.2-cp311-cp311-manylinux")
    assert "aarch64" in name
    assert found[name].name == name
    assert found[name].stat().st_size > 10_000


def test_what_a_package_needs_is_judged_by_the_devices_python_and_machine(tmp_path):
    needs = [
        "old; python_version < '3.10'",
        "arm; platform_machine == 'aarch64'",
        "pc; platform_machine == 'x86_64'",
    ]
    tiny_wheel(tmp_path / "index", "top", "1.0.0", needs=needs)
    for name in ("old", "arm", "pc"):
        tiny_wheel(tmp_path / "index", name, "1.0.0")
    index = from_folder(tmp_path / "index")
    found = {
        (python, arch): fetch_elsewhere(
            {"top": "1.0.0"}, {"python": python, "arch": arch, "glibc": "2.36"}, **index
        )
        for python in ("3.8.10", "3.13")
        for arch in ("aarch64", "x86_64")
    }
    names = {place: [name.partition("-")[0] for name in files] for place, files in found.items()}
    assert names == {
        ("3.8.10", "aarch64"): ["arm", "old", "top"],
        ("3.8.10", "x86_64"): ["old", "pc", "top"],
        ("3.13", "aarch64"): ["arm", "top"],
        ("3.13", "x86_64"): ["pc", "top"],
    }


def test_a_second_time_nothing_is_fetched(monkeypatch):
    said = []
    first = wheels_for(SMALL, **PI, detail=said.append)
    assert [line for line in said if line.startswith("MarkupSafe-3.0.2-cp311")]
    monkeypatch.setattr(wheels, "run_pip", None)
    assert wheels_for(SMALL, **PI) == first


def test_a_wheel_that_was_damaged_in_the_cache_is_fetched_again():
    (path,) = wheels_for(SMALL, **PI).values()
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    (again,) = wheels_for(SMALL, **PI).values()
    assert again.read_bytes() == content


def test_sets_share_the_wheels_that_they_have_in_common():
    one = wheels_for(SMALL, **PI)
    two = wheels_for({**SMALL, "zipp": "3.20.0"}, **PI)
    assert len(two) == 2
    assert one.items() <= two.items()


def test_the_oldest_wheels_go_when_the_cache_is_full(monkeypatch):
    (old,) = wheels_for({"zipp": "3.20.0"}, **PI).values()
    os.utime(old, (0, 0))
    monkeypatch.setattr(wheels, "MOST_BYTES", 30_000)
    (new,) = wheels_for(SMALL, **PI).values()
    assert new.is_file()
    assert not old.exists()


def test_a_glibc_that_is_too_old_is_named_with_the_newest_version_that_fits():
    with pytest.raises(OutsideFailure) as refused:
        wheels_for({"openvino": "2026.4.1"}, arch="aarch64", python="3.11.2", glibc="2.31")
    assert str(refused.value) == (
        "openvino 2026.4.1: no wheel fits CPython 3.11 on aarch64 with glibc 2.31, its wheels want a newer "
        "one; the newest that does is 2025.2.0; pin a version that fits in the target's `requirements` and "
        "build again, or use a newer system on the device"
    )


def test_a_python_for_which_there_is_nothing_is_named():
    with pytest.raises(OutsideFailure) as refused:
        wheels_for({"ai-edge-litert": "2.3.0"}, arch="armv7l", python="3.11", glibc="2.36")
    assert str(refused.value).startswith(
        "ai-edge-litert 2.3.0: no wheel fits CPython 3.11 on armv7l with glibc 2.36; pin a version"
    )


def test_without_a_network_the_line_says_so_and_what_to_do(tmp_path):
    closed = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}
    said = fetch_elsewhere(SMALL, **closed)
    assert said.startswith("fetching packages: the package index cannot be reached; connect this machine")
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_the_users_constraints_and_places_for_other_work_do_not_bind(tmp_path):
    (tmp_path / "constraints.txt").write_text("top<1\n")
    (tmp_path / "pip.conf").write_text("[global]\nuser = true\ntarget = /nowhere\n")
    tiny_wheel(tmp_path / "index", "top", "1.0.0")
    index = {**from_folder(tmp_path / "index"), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    found = fetch_elsewhere({"top": "1.0.0"}, **index, PIP_CONSTRAINT=str(tmp_path / "constraints.txt"))
    assert found == ["top-1.0.0-py3-none-any.whl"]


def test_a_disk_that_is_full_is_said_and_nothing_half_is_kept(tmp_path):
    tiny_wheel(tmp_path / "index", "large", "1.0.0", size=4_000_000)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        index = from_folder(tmp_path / "index")
        said = fetch_elsewhere({"large": "1.0.0"}, **index, EDGEKIT_CACHE=str(small), TMPDIR=str(tmp_path))
        assert said.startswith(
            "fetching packages: no room left on the disk; free some space, or set EDGEKIT_CACHE"
        )
        assert not list(small.rglob("*.whl"))
        assert not list(small.rglob("*.json"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_is_far_too_large_is_not_fetched_to_the_end(monkeypatch):
    monkeypatch.setattr(wheels, "MOST_MB", 0.001)
    with pytest.raises(OutsideFailure, match=r"markupsafe==3.0.2 and what they need take more than 0 MB"):
        wheels_for(SMALL, **PI)


def test_a_device_without_glibc_is_refused():
    with pytest.raises(OutsideFailure, match="the device has no glibc"):
        wheels_for(SMALL, arch="aarch64", python="3.11.2", glibc=None)


def test_a_python_without_pip_uses_the_wheel_that_came_with_it(monkeypatch):
    pip_here.environment.cache_clear()
    monkeypatch.setattr(pip_here, "_own_place", lambda: str(pip_here.bundled_wheel()))
    assert len(wheels_for(SMALL, **PI)) == 1
    pip_here.environment.cache_clear()


def test_the_installer_is_one_that_runs_on_all_the_pythons():
    assert installer_for("3.8.10") == pip_here.bundled_wheel()
    assert installer_for("3.11", "3.14").name > "pip-25"


@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", True),
        ("protobuf-7.36.2-cp310-abi3-manylinux2014_aarch64.whl", True),
        ("zipp-3.20.0-py3-none-any.whl", True),
        ("torch-2.13.0+cpu-cp311-cp311-linux_aarch64.whl", True),
        ("numpy-2.4.6-cp313-cp313-manylinux_2_28_aarch64.whl", False),
        ("numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("openvino-2026.4.1-1-cp311-cp311-manylinux_2_37_aarch64.whl", False),
        ("numpy-2.4.6-cp311-cp311-musllinux_1_2_aarch64.whl", False),
        ("no-wheel.txt", False),
    ],
)
def test_which_wheels_fit_a_raspberry_pi(name, does):
    assert fits(name, Place(**PI)) is does


def test_the_names_that_older_wheels_have_for_a_glibc_are_known():
    platforms = Place(arch="x86_64", python="3.11", glibc="2.17").platforms
    assert platforms[:2] == ["manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    assert {"manylinux2010_x86_64", "manylinux1_x86_64", "manylinux_2_5_x86_64"} < set(platforms)
    assert not any("manylinux1" in name for name in Place(**PI).platforms)


def test_the_wheels_of_a_bundle_are_used_where_all_that_it_requires_fits(tmp_path):
    fitting = "cp311-cp311-manylinux_2_28_aarch64"
    made = [
        tiny_wheel(tmp_path / "w", "onnxruntime", "1.31.1", tag=fitting),
        tiny_wheel(tmp_path / "w", "numpy", "2.4.6", tag=fitting),
        tiny_wheel(tmp_path / "w", "numpy", "2.4.6", tag=fitting.replace("cp311", "cp313")),
        tiny_wheel(tmp_path / "w", "below", "1.0.0"),
    ]
    bundle = packed(tmp_path / "tiny", wheels={wheel.name: wheel for wheel in made})
    manifest = read_manifest(bundle)
    found = in_bundle(bundle, manifest, **PI)
    assert sorted(found) == sorted([made[0].name, made[1].name, made[3].name])
    assert all(path.is_file() for path in found.values())
    for other in ({"python": "3.13.1"}, {"arch": "x86_64"}, {"glibc": "2.27"}, {"glibc": None}):
        assert in_bundle(bundle, manifest, **{**PI, **other}) == {}


def test_a_bundle_without_wheels_has_none(bundle):
    assert in_bundle(bundle, read_manifest(bundle), **PI) == {}


@given(st.integers(17, 60), st.integers(17, 60))
def test_an_older_glibc_never_takes_what_a_newer_one_does_not(one, two):
    older, newer = (
        Place(arch="aarch64", python="3.11", glibc=f"2.{n}").platforms for n in sorted((one, two))
    )
    assert set(older) <= set(newer)
    assert newer[-len(older) :] == older
