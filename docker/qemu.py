"""Put a QEMU that counts instructions into a folder: Debian's, its libraries, and the plugin made of count.c.

    python docker/qemu.py -o FOLDER

The QEMU behind binfmt_misc is static and takes no plugins. This one is unpacked, not installed: nothing of
the system changes, no root is needed, and it runs on any x86-64 Linux by its own loader:

    FOLDER/ld-linux-x86-64.so.2 --library-path FOLDER FOLDER/qemu-aarch64 -plugin FOLDER/count.so PROGRAM
"""

from __future__ import annotations

import argparse
import platform
import posixpath
import re
import subprocess
import tempfile
from pathlib import Path

import debian

SOURCE = Path(__file__).with_name("count.c")
EMULATOR = "qemu-user"
# What it links against, and what that links against.
LIBRARIES = (
    "libc6 libcapstone4 libffi8 libgcc-s1 libglib2.0-0 libgmp10 libgnutls30 libhogweed6 libidn2-0 libnettle8 "
    "libnuma1 libp11-kit0 libpcre2-8-0 libtasn1-6 libunistring2 liburing2 zlib1g"
).split()
WANTED = re.compile(
    r"usr/bin/qemu-aarch64|(usr/)?lib/x86_64-linux-gnu/(ld-linux-x86-64\.so\.2|lib[^/]*\.so\.[0-9.]+)"
)


def unpack(folder: Path, cache: Path) -> None:
    """Write the program and the libraries, all beside one another, and a list of their packages."""
    known, listed = debian.packages("amd64", cache), ""
    for name in (EMULATOR, *LIBRARIES):
        files: dict[str, bytes] = {}
        links: dict[str, str] = {}
        for member, content in debian.contents(known[name], cache):
            if WANTED.fullmatch(posixpath.normpath(member.name)):
                place = posixpath.basename(member.name)
                if member.issym():
                    links[place] = member.linkname
                else:
                    files[place] = content
        # A program asks for libz.so.1, which is a link to libz.so.1.2.13.
        files |= {place: files.pop(target) for place, target in links.items()}
        for place, content in files.items():
            (folder / place).write_bytes(content)
        listed += f"{name} {known[name].version} {known[name].sha256}\n"
    (folder / "packages").write_text(listed)


def compile_plugin(folder: Path) -> None:
    """Make count.so; it uses no function of the C library that Debian 12 has not."""
    command = ["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", folder / "count.so", SOURCE]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise debian.fail("gcc is missing; apt-get install gcc libc6-dev") from error
    except subprocess.CalledProcessError as error:
        line = next((line for line in error.stderr.splitlines() if "error" in line), "no message")
        raise debian.fail(f"gcc cannot compile {SOURCE}: {line}; apt-get install gcc libc6-dev") from error


def main() -> None:
    """Parse, make, put in place by one rename."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder; must not be there yet")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgekit" / "debian")
    options = parser.parse_args()
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise debian.fail(
            "the QEMU that counts instructions is here for Linux on x86-64 alone; count on such a machine"
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output.parent) as scratch:
        half = Path(scratch) / "half"
        half.mkdir()
        half.chmod(0o755)  # whatever the umask: the user of a container reads it
        compile_plugin(half)
        unpack(half, options.cache)
        for path in half.iterdir():
            path.chmod(0o755)
        try:
            half.rename(options.output)
        except OSError:  # another process was faster
            if not options.output.is_dir():
                raise


if __name__ == "__main__":
    main()
