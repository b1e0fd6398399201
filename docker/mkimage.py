"""Make a small Debian 12 image with Python 3.11 for another CPU, without running one foreign instruction.

    python docker/mkimage.py arm64 --tag edgekit/arm64 -o arm64.tar && docker load -i arm64.tar

The files of a few dozen packages become one layer; no maintainer script runs and no registry is asked. The
same packages give the same bytes; the image lists them in /etc/edgekit-packages.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import debian

# What the image says of its processor.
PLATFORMS = {
    "arm64": {"architecture": "arm64", "variant": "v8"},
    "armhf": {"architecture": "arm", "variant": "v7"},
    "amd64": {"architecture": "amd64"},
}
# What Python's standard library and the wheels of the runtimes link against, a shell and basic tools.
PACKAGES = (
    "base-files coreutils dash libacl1 libattr1 libbz2-1.0 libc-bin libc6 libcrypt1 libexpat1 libffi8 "
    "libgcc-s1 libgmp10 libgomp1 liblzma5 libncursesw6 libpcre2-8-0 libpython3.11-minimal libreadline8 "
    "libpython3.11-stdlib libselinux1 libsqlite3-0 libssl3 libstdc++6 libtinfo6 libuuid1 netbase "
    "python3.11-minimal zlib1g"
).split()
LEFT_OUT = re.compile(
    r"usr/share/(doc|man|info|locale|lintian|bug|gdb|menu|pixmaps|binfmts)(/|$)|usr/lib/[^/]+/gconv/"
    r"|usr/lib/python3\.11/(pydoc_data|lib2to3|idlelib|ensurepip|turtledemo|test)/"
)
# Debian's packages still spell /lib/ld-linux-aarch64.so.1; all of /lib lies in /usr/lib.
MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib"}
# What the maintainer scripts would have made.
LINKS = {**MERGED, "usr/bin/sh": "dash", "usr/bin/python3": "python3.11", "usr/bin/python": "python3.11"}
FOLDERS = {
    "tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700,
    **dict.fromkeys(["proc", "sys"], 0o555),
    **dict.fromkeys(["dev", "run", "etc", "var", "opt", "mnt", "home", "home/edge"], 0o755),
}  # fmt: skip
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nedge:x:1000:1000:edge:/home/edge:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nedge:x:1000:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
ENVIRONMENT = ["PATH=/usr/bin:/usr/sbin", "PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8"]
DATE = 1_700_000_000  # of every file: an image has no date of its own

Entries = dict[str, tuple[tarfile.TarInfo, bytes]]


def layer(arch: str, names: list[str], cache: Path) -> bytes:
    """The root file system as a tar."""
    known, entries = debian.packages(arch, cache), Entries()
    if missing := [name for name in names if name not in known]:
        raise debian.fail(f"Debian {debian.RELEASE} has no package {missing[0]} for {arch}")
    for name in sorted(names):
        _unpack(known[name], cache, entries)
    for path, target in LINKS.items():
        _put(entries, path, kind=tarfile.SYMTYPE, link=target, mode=0o777)
    for path, mode in FOLDERS.items():
        _put(entries, path, kind=tarfile.DIRTYPE, mode=mode)
    listed = "".join(f"{known[n].name} {known[n].version} {known[n].sha256}\n" for n in sorted(names))
    for path, text in {**FILES, "etc/edgekit-packages": listed}.items():
        _put(entries, path, content=text.encode())
    # A hard link must come after the file that it is to.
    ordered = sorted(entries, key=lambda path: (entries[path][0].islnk(), path))
    return _tar([entries[path] for path in ordered])


def image(arch: str, tag: str, root: bytes) -> bytes:
    """What `docker load` takes: the layer, its configuration and a list of both."""
    digest = hashlib.sha256(root).hexdigest()
    configuration: dict[str, Any] = {
        **PLATFORMS[arch],
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": {"Env": ENVIRONMENT, "Cmd": ["python3"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "edgekit docker/mkimage.py"}],
    }
    config = _json(configuration)
    names = {"Config": f"{hashlib.sha256(config).hexdigest()}.json", "Layers": [f"{digest}/layer.tar"]}
    files = {
        names["Config"]: config,
        names["Layers"][0]: root,
        "manifest.json": _json([{**names, "RepoTags": [tag]}]),
    }
    entries = Entries()
    for name, content in files.items():
        _put(entries, str(name), content=content)
    return _tar(list(entries.values()))


def _unpack(package: debian.Package, cache: Path, entries: Entries) -> None:
    for member, content in debian.contents(package, cache):
        path = _merged(posixpath.normpath(member.name))
        if path == "." or LEFT_OUT.search(path) or (member.isdir() and path in entries):
            continue
        link = _merged(posixpath.normpath(member.linkname)) if member.islnk() else member.linkname
        _put(entries, path, kind=member.type, link=link, mode=member.mode, content=content)


def _merged(path: str) -> str:
    top, _, rest = path.lstrip("/").partition("/")
    return posixpath.join(MERGED.get(top, top), rest) if rest else MERGED.get(top, top)


def _put(
    entries: Entries,
    path: str,
    *,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
) -> None:
    """Add an entry that belongs to root and has no date of its own."""
    entry = tarfile.TarInfo(path)
    entry.type, entry.linkname, entry.mode = kind, link, mode
    entry.size, entry.mtime = len(content), DATE
    entries[path] = (entry, content)


def _tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _json(data: Mapping[str, Any] | list[Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def main() -> None:
    """Parse, make, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arch", choices=PLATFORMS)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the archive for `docker load`")
    parser.add_argument("--tag", required=True, help="name of the image: edgekit/arm64:1")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgekit" / "debian")
    parser.add_argument(
        "--package", action="append", default=[], help="one more package, with nothing it needs"
    )
    options = parser.parse_args()
    made = image(options.arch, options.tag, layer(options.arch, [*PACKAGES, *options.package], options.cache))
    half = options.output.with_name(f".{options.output.name}.{os.getpid()}.half")
    half.write_bytes(made)
    half.replace(options.output)


if __name__ == "__main__":
    main()
