"""The image of an emulated board: the same packages give the same bytes, and only signed ones get in."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile

import pytest
from emulated import DOCKER


def make(folder, name="image.tar", **environment):
    """Run docker/mkimage.py with a cache of packages that lasts as long as the tests."""
    command = [sys.executable, DOCKER / "mkimage.py", "arm64", "--tag", "edgekit/test:1", "-o", folder / name]
    return subprocess.run(
        [*command, "--cache", folder / "cache"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an image and the packages that it was made from."""
    folder = tmp_path_factory.mktemp("image")
    done = make(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_same_packages_give_the_same_image_also_when_one_in_the_cache_is_spoilt(made):
    before = (made / "image.tar").read_bytes()
    spoilt = next(path for path in (made / "cache").iterdir() if path.stat().st_size > 1000)
    content = spoilt.read_bytes()
    spoilt.write_bytes(b"not " + content)
    assert make(made, "again.tar").returncode == 0
    assert (made / "again.tar").read_bytes() == before
    assert spoilt.read_bytes() == content


def test_the_image_says_what_it_is_and_what_is_in_it(made):
    with tarfile.open(made / "image.tar") as image:
        manifest = json.load(image.extractfile("manifest.json"))[0]
        config = json.load(image.extractfile(manifest["Config"]))
        layer = image.extractfile(manifest["Layers"][0]).read()
        assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
        assert (config["architecture"], config["variant"]) == ("arm64", "v8")
        with tarfile.open(fileobj=image.extractfile(manifest["Layers"][0])) as root:
            names = root.getnames()
            listed = root.extractfile("etc/edgekit-packages").read().decode().splitlines()
    assert len(listed) > 20
    assert all(len(line.split()) == 3 and len(line.split()[2]) == 64 for line in listed)
    assert "usr/lib/ld-linux-aarch64.so.1" in names
    assert not [name for name in names if name.startswith(("usr/share/doc", "usr/share/man"))]
    assert (made / "image.tar").stat().st_size < 60e6


def test_an_index_that_debian_did_not_sign_is_refused(made, tmp_path):
    folder = tmp_path / "dists" / "bookworm"
    folder.mkdir(parents=True)
    (folder / "InRelease").write_text("Origin: Debian\n")
    done = make(made, EDGEKIT_DEBIAN_MIRROR=tmp_path.as_uri())
    assert done.returncode == 4
    assert done.stderr.startswith("error: the index of Debian bookworm is not signed by a key in /usr/share/")
    assert len(done.stderr.splitlines()) == 1


def test_an_archive_that_is_not_there_is_said(made, tmp_path):
    done = make(made, EDGEKIT_DEBIAN_MIRROR=(tmp_path / "none").as_uri())
    assert done.returncode == 4
    assert "InRelease" in done.stderr
    assert len(done.stderr.splitlines()) == 1
