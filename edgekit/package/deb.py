"""A Debian package of a bundle, with what it needs and a unit that serves it (deb(5), deb-control(5))."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

from edgekit.errors import BadInput
from edgekit.files import written_whole
from edgekit.package.layer import DATE, Content, tar_of
from edgekit.package.subject import Subject, site_packages

ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64", "armv7l": "armhf"}
# The oldest Debian that has this Python, and its C library: wheels are chosen for that one.
GLIBC = {"3.9": "2.31", "3.11": "2.36", "3.13": "2.41"}
UNIT = """[Unit]
Description={summary}

[Service]
Type=notify
DynamicUser=yes
RuntimeDirectory={name}
Environment=PYTHONPATH={home}/site PYTHONDONTWRITEBYTECODE=1
ExecStart=/usr/bin/python{python} {home}/bundle/run.py --serve unix:/run/{name}/{name}.sock
Restart=on-failure
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""
# Where systemd runs the service starts at once, as Debian's own packages do; elsewhere nothing is started.
POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable --quiet {name}.service
    systemctl restart {name}.service
fi
"""
PRERM = """#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl stop {name}.service
    [ "$1" != remove ] || systemctl disable --quiet {name}.service
fi
"""
COMMAND = """#!/bin/sh
PYTHONPATH={home}/site exec /usr/bin/python{python} {home}/bundle/run.py "$@"
"""


def write_deb(subject: Subject, path: Path, python: str) -> str:
    """Write the package; returns its name, as `dpkg` knows it.

    It installs `/opt/NAME`, the command `/usr/bin/NAME` (`NAME --check`) and the unit `NAME.service`. The
    same bundle gives the same bytes.

    Args:
        subject: the bundle.
        path: the file.
        python: minor version of the device's Python.

    Raises:
        BadInput: no Debian has this Python.
        OutsideFailure: packages cannot be fetched, or the file cannot be written.
    """
    if python not in GLIBC:
        todo = f"give one of {', '.join(GLIBC)} with `--python`"
        raise BadInput(f"no Debian has Python {python}", where=subject.name, todo=todo)
    home = f"/opt/{subject.name}"
    words = {"name": subject.name, "summary": subject.summary, "home": home, "python": python}
    files = {
        **subject.files(f"{home[1:]}/bundle"),
        **site_packages(subject, python, GLIBC[python], f"{home[1:]}/site"),
        f"usr/lib/systemd/system/{subject.name}.service": Content(UNIT.format(**words).encode()),
        f"usr/bin/{subject.name}": Content(COMMAND.format(**words).encode(), True),
    }
    contents = {name: content.read() for name, content in files.items()}
    control = {
        "control": Content(_control(subject, python, sum(map(len, contents.values()))).encode()),
        "md5sums": Content(_md5sums(contents).encode()),
        "postinst": Content(POSTINST.format(**words).encode(), True),
        "prerm": Content(PRERM.format(**words).encode(), True),
    }
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(tar_of(control, prefix="./"), mtime=0),
        "data.tar.gz": gzip.compress(tar_of(files, prefix="./"), mtime=0),
    }
    with written_whole(path) as half:
        half.write_bytes(ar_of(members))
    return subject.name


def _control(subject: Subject, python: str, size: int) -> str:
    major, minor = python.split(".")
    arch = subject.manifest.device.arch
    return (
        f"Package: {subject.name}\n"
        f"Version: {subject.version}\n"
        f"Architecture: {ARCHITECTURES[arch]}\n"
        f"Depends: python3 (>= {python}), python3 (<< {major}.{int(minor) + 1}), libstdc++6, libgomp1\n"
        f"Installed-Size: {size // 1024 + 1}\n"
        "Maintainer: edgekit <root@localhost>\n"
        "Section: science\n"
        "Priority: optional\n"
        f"Description: {subject.summary}\n"
        f" Made by edgekit {subject.manifest.edgekit}. `{subject.name} --check` shows that it works here.\n"
    )


def _md5sums(contents: Mapping[str, bytes]) -> str:
    # MD5 is the format's; what a package manager trusts is the archive's signature.
    return "".join(
        f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  {name}\n"
        for name, content in sorted(contents.items())
    )


def ar_of(members: Mapping[str, bytes]) -> bytes:
    """An ar archive in the common format: what a Debian package is."""
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{DATE:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode("ascii"))
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)
