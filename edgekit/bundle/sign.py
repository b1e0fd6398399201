"""Sign a bundle, and see who signed it: by OpenSSH, its manifest, which holds the digests of all else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import platformdirs

from edgekit.bundle.archive import open_bundle, write_archive
from edgekit.bundle.check import SIGNATURE, check_files
from edgekit.bundle.manifest import FILE, confine, read_manifest
from edgekit.errors import BadInput, EdgekitError, OutsideFailure, VerificationFailed, clean
from edgekit.files import written_whole
from edgekit.ondevice.remote import signature as ssh

# In the order in which ssh tries them.
KEYS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
NO_KEY = "make one with `ssh-keygen -t ed25519`, or name one with `--key`"
T = TypeVar("T")
ENOUGH_SECONDS = 300.0  # somebody may have to type a passphrase or touch a security key


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who signed a bundle.

    Attributes:
        key: `ED25519 SHA256:...`.
        name: as the file of allowed signers says; None where there is no such file, or the key is not in it.
    """

    key: str
    name: str | None


def sign_bundle(path: Path, key: Path | None = None) -> Signer:
    """Sign a bundle, a folder or an archive of one; a signature that was there is replaced.

    Args:
        path: of the bundle, whose files are checked first.
        key: the private key's file, or the `.pub` of one that the agent holds; the user's first when None.

    Raises:
        BadInput: there is no bundle or no key.
        VerificationFailed: a file is not what the manifest says.
        OutsideFailure: ssh-keygen is missing or refuses, or the bundle cannot be written.
    """
    key = _first_key() if key is None else _checked(key)
    with open_bundle(path) as bundle:
        check_files(bundle, read_manifest(bundle))
        made = _signed((bundle / FILE).read_bytes(), key)
        with written_whole(bundle / SIGNATURE) as half:
            half.write_bytes(made)
        if path.is_file():
            write_archive(bundle, path)
        return Signer(
            key=_translated(lambda: ssh.key_of((bundle / FILE).read_bytes(), made), path), name=None
        )


def signature_of(bundle: Path) -> bytes | None:
    """The signature that lies in a bundle's folder; None where there is none.

    Raises:
        VerificationFailed: it is a link, or larger than signatures are.
    """
    if not os.path.lexists(bundle / SIGNATURE):
        return None
    try:
        with confine(bundle, SIGNATURE).open("rb") as file:
            content = file.read(ssh.MOST_BYTES + 1)
    except BadInput as error:
        raise VerificationFailed(error.what, where=error.where, todo=error.todo) from error
    if len(content) > ssh.MOST_BYTES:
        raise VerificationFailed(
            "larger than any signature", where=str(bundle / SIGNATURE), todo="sign it again"
        )
    return content


def who_signed(bundle: Path, allowed: Path | None = None) -> Signer | None:
    """Who signed the bundle in this folder; None where nobody did.

    Args:
        bundle: the folder.
        allowed: a file of allowed signers, one of whom must have signed; None: the user's own tells names.

    Raises:
        VerificationFailed: the signature is not of this manifest, or nobody in `allowed` signed.
        OutsideFailure: ssh-keygen is missing, or the file cannot be read.
    """
    signature = signature_of(bundle)
    if signature is None:
        if allowed is not None:
            what = f"not signed, and {allowed} says who must"
            raise VerificationFailed(what, where=str(bundle), todo="have it signed with `edgekit sign`")
        return None
    manifest = (bundle / FILE).read_bytes()
    if allowed is not None:
        name, key = _translated(lambda: ssh.signer_of(manifest, signature, str(allowed)), bundle)
        return Signer(key=key, name=name)
    key = _translated(lambda: ssh.key_of(manifest, signature), bundle)
    own = allowed_signers()
    try:
        return Signer(key=key, name=ssh.signer_of(manifest, signature, str(own))[0] if own.exists() else None)
    except ssh.Refused:
        return Signer(key=key, name=None)


def allowed_signers() -> Path:
    """Where the user's own file of allowed signers lies, or would."""
    config = os.environ.get("EDGEKIT_CONFIG")
    return (Path(config) if config else platformdirs.user_config_path("edgekit")) / "allowed_signers"


def _first_key() -> Path:
    """The user's first key as ssh looks for it.

    Raises:
        BadInput: there is none.
    """
    folder = Path.home() / ".ssh"
    for name in KEYS:
        for path in (folder / name, folder / f"{name}.pub"):  # the private half of a `.pub` is in the agent
            if path.is_file():
                return path
    raise BadInput("no key to sign with", where=str(folder), todo=NO_KEY)


def _checked(key: Path) -> Path:
    if not key.is_file():
        raise BadInput("no such key", where=str(key), todo=NO_KEY)
    return key


def _signed(content: bytes, key: Path) -> bytes:
    """The signature; ssh-keygen asks for a passphrase itself, on the terminal."""
    command = ["ssh-keygen", "-Y", "sign", "-n", ssh.NAMESPACE, "-f", str(key)]
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, timeout=ENOUGH_SECONDS, check=False
        )
    except OSError as error:
        raise OutsideFailure(f"ssh-keygen: {error.strerror}", todo=ssh.INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise OutsideFailure(f"ssh-keygen did not sign in {ENOUGH_SECONDS:.0f} s", where=str(key)) from error
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        todo = "unlock it with `ssh-add`, or name another with `--key`"
        raise OutsideFailure(f"ssh-keygen does not sign: {clean(lines[-1], 200)}", where=str(key), todo=todo)
    return done.stdout


def _translated(ask: Callable[[], T], where: Path) -> T:
    """What `ask` gives; a refusal becomes one of edgekit's."""
    try:
        return ask()
    except ssh.Refused as refused:
        kind: type[EdgekitError] = (
            VerificationFailed if refused.status == ssh.CHECK_FAILED else OutsideFailure
        )
        what, _, todo = str(refused).partition("; ")
        raise kind(what, where=str(where), todo=todo or None) from refused
