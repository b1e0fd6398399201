"""Packages of Debian 12 for another architecture: signatures checked, unpacked, never run.

The archive is the one that this machine's apt uses. Its index is signed (gpgv and Debian's keyring check
that), the index holds the digest of the list of packages, the list holds the digest of each package.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RELEASE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES = Path("/etc/apt")
TIMEOUT_S = 60


@dataclass(frozen=True)
class Package:
    """One package of the list: its path in the archive and the digest of its file."""

    name: str
    version: str
    path: str
    sha256: str


def fail(what: str) -> SystemExit:
    """The refusal: one line and exit status 4, something outside is missing or failed."""
    print(f"error: {what}", file=sys.stderr)  # noqa: T201 - the program's own answer
    return SystemExit(4)


def mirror() -> str:
    """Where apt gets the packages of this Debian release; EDGEKIT_DEBIAN_MIRROR names another place."""
    if named := os.environ.get("EDGEKIT_DEBIAN_MIRROR"):
        return named.rstrip("/")
    for path in sorted(SOURCES.rglob("*.sources")):
        for entry in path.read_text().split("\n\n"):
            keys = dict(re.findall(r"^(\w+):[ \t]*(.*)$", entry, re.MULTILINE))
            if RELEASE in keys.get("Suites", "").split():
                return str(keys["URIs"].split()[0]).rstrip("/")
    for path in sorted(SOURCES.rglob("*.list")):
        if found := re.search(rf"^deb +(?:\[[^]]*\] +)?(\S+) +{RELEASE} ", path.read_text(), re.MULTILINE):
            return found[1].rstrip("/")
    raise fail(f"apt knows no archive of Debian {RELEASE}; name one in EDGEKIT_DEBIAN_MIRROR")


def packages(arch: str, cache: Path) -> dict[str, Package]:
    """The packages of the release's main section for this architecture, by name."""
    place, folder = mirror(), f"main/binary-{arch}"
    index = _signed(_get(f"{place}/dists/{RELEASE}/InRelease"))
    found = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(folder)}/Packages\.xz$", index, re.MULTILINE)
    if found is None:
        raise fail(f"{place}: Debian {RELEASE} has no packages for {arch}")
    by_hash = f"dists/{RELEASE}/{folder}/by-hash/SHA256/{found[1]}"
    listed = lzma.decompress(_kept(f"{place}/{by_hash}", found[1], cache)).decode()
    return {package.name: package for package in map(_package, listed.strip().split("\n\n"))}


def contents(package: Package, cache: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The files, folders and links of a package, and what is in the files; scripts of it are not read."""
    archive = _data(_kept(f"{mirror()}/{package.path}", package.sha256, cache))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            yield member, file.read() if file else b""


def _package(paragraph: str) -> Package:
    keys = dict(re.findall(r"^(\w+): (.*)$", paragraph, re.MULTILINE))
    return Package(keys["Package"], keys["Version"], keys["Filename"], keys["SHA256"])


def _signed(release: bytes) -> str:
    """The text of a signed index, after its signature was checked."""
    if not KEYRING.exists():
        raise fail(f"{KEYRING} is missing; apt-get install debian-archive-keyring gpgv")
    with tempfile.TemporaryDirectory() as folder:
        path, text = Path(folder) / "InRelease", Path(folder) / "Release"
        path.write_bytes(release)
        try:
            subprocess.run(
                ["gpgv", "--quiet", "--keyring", KEYRING, "--output", text, path],  # noqa: S607
                check=True,
                capture_output=True,
            )
        except FileNotFoundError as error:
            raise fail("gpgv is missing; apt-get install gpgv") from error
        except subprocess.CalledProcessError as error:
            raise fail(f"the index of Debian {RELEASE} is not signed by a key in {KEYRING}") from error
        return text.read_text()


def _kept(url: str, sha256: str, cache: Path) -> bytes:
    """A file of that digest from the cache, else fetched and kept there."""
    path = cache / sha256
    if path.exists() and hashlib.sha256(content := path.read_bytes()).hexdigest() == sha256:
        return content
    content = _get(url)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise fail(f"{url}: the SHA-256 is not the one that Debian lists; try again")
    cache.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}.half")
    half.write_bytes(content)
    half.replace(path)
    return content


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - apt's own archive
            content: bytes = answer.read()
            return content
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        raise fail(f"{url}: {error}") from error


def _data(deb: bytes) -> bytes:
    """The tar of the files in a .deb, which is an ar archive of three members."""
    place = 8  # after the magic
    while place < len(deb):
        name = deb[place : place + 16].decode().strip().rstrip("/")
        size = int(deb[place + 48 : place + 58])
        if name == "data.tar.xz":
            return lzma.decompress(deb[place + 60 : place + 60 + size])
        place += 60 + size + size % 2
    raise fail("a .deb without data.tar.xz")
