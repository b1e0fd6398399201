"""Who signed a bundle's manifest, as `ssh-keygen -Y` of OpenSSH says; the same code here and on a device."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from typing import List, Tuple

NAMESPACE = "edgekit"  # a signature that was made for another purpose counts for nothing
MOST_BYTES = 100_000
SECONDS = 60.0
OUTSIDE, CHECK_FAILED = 4, 5
INSTALL = "install OpenSSH 8.3 or newer: apt-get install openssh-client"
_GOOD = re.compile(r'^Good ".*" signature .*?with (\S+) key (SHA256:\S+)', re.MULTILINE)
_TOO_OLD = ("illegal option", "invalid option", "unknown option", "Unsupported operation")


class Refused(Exception):
    """One line for the user, and the exit status that belongs to it."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


def key_of(manifest: bytes, signature: bytes) -> str:
    """The key that signed, `ED25519 SHA256:...`; whose it is remains open.

    Raises:
        Refused: it is no signature of this manifest (5), or there is no ssh-keygen that can tell (4).
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-signature-") as folder:
        path = _written(folder, signature)
        done = _run(["check-novalidate", "-n", NAMESPACE, "-s", path], manifest)
    return _key(done)


def signer_of(manifest: bytes, signature: bytes, allowed: str) -> Tuple[str, str]:
    """Who signed, as the file of allowed signers calls them, and with which key.

    Args:
        manifest: the signed content.
        signature: as `ssh-keygen -Y sign` writes it.
        allowed: path of a file as in ssh-keygen(1), ALLOWED SIGNERS.

    Raises:
        Refused: the signature is not of this manifest, or by nobody in the file (5); the file cannot be read,
            or there is no ssh-keygen that can tell (4).
    """
    key = key_of(manifest, signature)
    if not os.access(allowed, os.R_OK):
        raise Refused(f"{allowed} cannot be read; make it readable", OUTSIDE)
    with tempfile.TemporaryDirectory(prefix="edgekit-signature-") as folder:
        path = _written(folder, signature)
        found = _run(["find-principals", "-s", path, "-f", allowed], b"")
        for name in found.stdout.decode("utf-8", "replace").splitlines():
            command = ["verify", "-n", NAMESPACE, "-f", allowed, "-I", name, "-s", path]
            if name and _run(command, manifest).returncode == 0:
                return name, key
    raise Refused(
        f"signed with {key}, which {allowed} does not allow; have it signed by one of those", CHECK_FAILED
    )


def _written(folder: str, signature: bytes) -> str:
    if len(signature) > MOST_BYTES:
        raise Refused("the signature is larger than any is; sign the bundle again", CHECK_FAILED)
    path = os.path.join(folder, "signature")
    with open(path, "wb") as file:
        file.write(signature)
    return path


def _run(arguments: List[str], given: bytes) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["ssh-keygen", "-Y", *arguments],  # noqa: S607 - looked up on the PATH, as ssh is
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            env=environment,
            check=False,
        )
    except OSError as error:
        raise Refused(
            f"no ssh-keygen to check signatures with ({error.strerror}); {INSTALL}", OUTSIDE
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Refused(f"ssh-keygen gave no answer in {SECONDS:.0f} s; try again", OUTSIDE) from error
    if done.returncode and any(word in done.stderr.decode("utf-8", "replace") for word in _TOO_OLD):
        raise Refused(f"ssh-keygen is too old to check signatures; {INSTALL}", OUTSIDE)
    return done


def _key(done: "subprocess.CompletedProcess[bytes]") -> str:
    good = _GOOD.search(done.stdout.decode("utf-8", "replace"))
    if done.returncode or good is None:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise Refused(
            f"the signature is not one of this manifest ({lines[0][:150]}); sign it again", CHECK_FAILED
        )
    return f"{good[1]} {good[2]}"
