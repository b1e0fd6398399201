"""Each format, made of a real bundle and installed for real in an emulated arm64 board."""

import hashlib
import io
import json
import subprocess
import tarfile
import zipfile

import pytest
from bundles import packed, run_edgekit
from emulated import DOCKER
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.wheels import installer_for, wheels_for
from edgekit.emulation.engine import connect
from edgekit.emulation.image import made
from edgekit.package.deb import ar_of

# What dpkg needs beside the packages of the image.
DPKG = ("dpkg", "libmd0", "libzstd1", "tar", "sed", "grep", "debianutils", "mawk", "diffutils")
BOARD = ["--init", "--platform", "linux/arm64", "--network", "none", "--env", "QEMU_CPU=cortex-a72"]
CPUINFO = ["--volume", f"{DOCKER}/cpuinfo-rpi4.txt:/proc/cpuinfo:ro"]


@pytest.fixture(scope="module")
def engine():
    subprocess.run([DOCKER / "up"], check=True, timeout=120)
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("packages") / "tiny")


@pytest.fixture(scope="module")
def package(tiny):
    """Make a package beside the bundle; gives what `--json` says of it."""

    def make(kind, *options, name="made"):
        place = tiny.parent / f"{name}.{kind}"
        done = run_edgekit("package", tiny, "--format", kind, "-o", place, "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return make


def run(image, *command, options=()):
    """Run a command in a container of the board."""
    words = ["docker", "run", "--rm", *BOARD, *CPUINFO, *options, image, *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=280, check=False)


def test_the_image_is_loaded_and_its_network_answers_as_it_must(package, engine):
    found = package("oci")
    loaded = subprocess.run(
        ["docker", "load", "-i", found["file"]], capture_output=True, text=True, timeout=120, check=False
    )
    assert loaded.returncode == 0, loaded.stderr
    assert f"Loaded image: {found['name']}" in loaded.stdout
    try:
        done = run(found["name"], "--check", options=["--read-only", "--cap-drop", "ALL"])
        assert done.returncode == 0, done.stderr
        assert "golden samples agree" in done.stdout
        config = engine.images.get(found["name"]).attrs
        assert (config["Architecture"], config["Config"]["User"]) == ("arm64", "1000:1000")
        assert config["Config"]["Cmd"] == ["--serve", "unix:/run/edgekit/tiny.sock"]
    finally:
        engine.images.remove(found["name"])


def test_the_image_is_an_oci_layout_whose_digests_are_right(package):
    with tarfile.open(package("oci", name="layout")["file"]) as archive:
        read = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}
    assert json.loads(read["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(read["index.json"])["manifests"]
    assert entry["platform"] == {"architecture": "arm64", "variant": "v8", "os": "linux"}

    def blob(descriptor):
        content = read["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
        assert len(content) == descriptor["size"]
        assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
        return content

    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    layers = [blob(layer) for layer in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    with tarfile.open(fileobj=io.BytesIO(layers[2])) as last:
        assert last.getmember("run/edgekit").mode == 0o1777
        assert "opt/tiny/bundle/manifest.json" in last.getnames()


def test_the_debian_package_is_installed_used_and_removed(package, engine, tiny):
    package("deb", "--version", "1.2")
    script = (
        "mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates && touch /var/lib/dpkg/status && "
        "dpkg --force-depends -i /packages/made.deb && tiny --check && dpkg -s tiny && "
        "test -f /usr/lib/systemd/system/tiny.service && dpkg -r tiny && test ! -e /opt/tiny"
    )
    image = made(engine, print, DPKG)
    done = run(image, "sh", "-ec", script, options=["--volume", f"{tiny.parent}:/packages:ro"])
    assert done.returncode == 0, done.stderr
    assert "golden samples agree" in done.stdout
    assert "Architecture: arm64\nVersion: 1.2+" in done.stdout


def test_the_unit_of_the_debian_package_is_one_that_systemd_takes(package, tmp_path):
    package("deb", name="unit")
    subprocess.run(["dpkg-deb", "-x", package("deb", name="unit")["file"], tmp_path], check=True)
    unit = tmp_path / "usr" / "lib" / "systemd" / "system" / "tiny.service"
    text = unit.read_text()
    assert "--serve unix:/run/tiny/tiny.sock" in text
    assert (tmp_path / "opt" / "tiny" / "bundle" / "run.py").stat().st_mode & 0o100


def test_the_wheel_is_installed_by_pip_and_predicts(package, engine, tiny, tmp_path):
    from edgekit.package.subject import subject_of
    from edgekit.package.wheel import wheel_name

    name = wheel_name(subject_of(tiny, "1.0"))
    made_wheel = package("wheel")
    for path in wheels_for(subject_of(tiny, "1.0").manifest.requirements, arch="aarch64", python="3.11",
                           glibc="2.36").values():  # fmt: skip
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((tiny.parent / "made.wheel").read_bytes())
    pip = installer_for("3.11")
    (tmp_path / pip.name).write_bytes(pip.read_bytes())
    predict = (
        "import numpy, tiny; x = numpy.ones((1, 3, 16, 16), numpy.float32); "
        "assert numpy.array_equal(tiny.predict(x), tiny.load().predict(x)); print(tiny.predict(x).shape)"
    )
    script = (
        "python3 -m venv --without-pip /tmp/v && "
        f"/tmp/v/bin/python /packages/{pip.name}/pip install --quiet --no-compile --no-index "
        f"--find-links /packages /packages/{name} && /tmp/v/bin/python -m tiny --check && "
        f"/tmp/v/bin/python -c '{predict}'"
    )
    image = made(engine, print)
    done = run(image, "sh", "-ec", script, options=["--volume", f"{tmp_path}:/packages:ro"])
    assert done.returncode == 0, done.stderr
    assert "golden samples agree" in done.stdout
    assert done.stdout.endswith("(1, 10)\n")
    with zipfile.ZipFile(made_wheel["file"]) as archive:
        assert archive.testzip() is None


def test_the_archive_is_unpacked_and_checks_itself(package, engine, tiny):
    from edgekit.package.subject import subject_of, unpack_wheel

    package("tar")
    site = tiny.parent / "site"
    manifest = subject_of(tiny, "1.0").manifest
    for wheel in wheels_for(manifest.requirements, arch="aarch64", python="3.11", glibc="2.36").values():
        unpack_wheel(wheel, site)
    unpack = "import tarfile; tarfile.open('/packages/made.tar').extractall('/tmp')"
    script = f'python3 -c "{unpack}" && PYTHONPATH=/packages/site python3 /tmp/tiny/run.py --check'
    image = made(engine, print)
    done = run(image, "sh", "-ec", script, options=["--volume", f"{tiny.parent}:/packages:ro"])
    assert done.returncode == 0, done.stderr
    assert "golden samples agree" in done.stdout


@pytest.mark.parametrize("kind", ["oci", "deb", "wheel", "tar"])
def test_the_same_bundle_gives_the_same_bytes(package, kind):
    one, other = (package(kind, name=name)["file"] for name in ("one", "other"))
    digests = set()
    for path in (one, other):
        with open(path, "rb") as file:  # noqa: PTH123
            digests.add(hashlib.file_digest(file, "sha256").hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format", "deb", "--version", "v1"), "--version: `v1` is no version; write for example 1.2.0"),
        (("--format", "deb", "--python", "3.12"), "no Debian has Python 3.12; give one of 3.9, 3.11, 3.13"),
        (("--format", "tar", "--python", "3.11"), "only a Debian package is made for one Python"),
        (("--format", "zip"), "is not one of 'oci', 'deb', 'wheel', 'tar'"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line_and_leaves_nothing(tiny, tmp_path, options, words):
    done = run_edgekit("package", tiny, "-o", tmp_path / "x", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_damaged_bundle_is_not_packaged(tmp_path):
    bundle = packed(tmp_path / "tiny")
    (bundle / "model.onnx").write_bytes(b"x")
    done = run_edgekit("package", bundle, "--format", "wheel", "-o", tmp_path / "x.whl")
    assert done.returncode == 5
    assert not (tmp_path / "x.whl").exists()


@given(st.dictionaries(st.text("abc.-", min_size=1, max_size=15), st.binary(max_size=30), max_size=4))
def test_members_of_an_ar_archive_are_found_where_the_format_says(members):
    data = ar_of(members)
    assert data.startswith(b"!<arch>\n")
    place, found = 8, {}
    while place < len(data):
        assert data[place + 58 : place + 60] == b"`\n"
        name, size = data[place : place + 16].decode().rstrip(), int(data[place + 48 : place + 58])
        found[name] = data[place + 60 : place + 60 + size]
        place += 60 + size + size % 2
    assert found == members
