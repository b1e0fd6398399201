"""Signatures of bundles, by OpenSSH's own ssh-keygen."""

import contextlib
import os
import shutil
import subprocess

import pytest
from sshd import make_key, public

from edgekit.bundle.archive import open_bundle, write_archive
from edgekit.bundle.check import check_files
from edgekit.bundle.manifest import read_manifest
from edgekit.bundle.place import check_destination
from edgekit.bundle.sign import allowed_signers, sign_bundle, signature_of, who_signed
from edgekit.errors import BadInput, OutsideFailure, VerificationFailed


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user without keys, agent and settings."""
    home = tmp_path / "me"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EDGEKIT_CONFIG", str(home / "config"))
    for name in ("SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    (home / "config").mkdir()
    return home


@pytest.fixture
def key(home):
    return make_key(home / ".ssh" / "id_ed25519")


def allow(path, key, name="ada@example.org", more=""):
    path.write_text(f"{name} {more} {public(key)}")
    return path


def test_the_signature_is_one_that_ssh_keygen_itself_verifies(bundle, key, tmp_path):
    sign_bundle(bundle)
    allowed = allow(tmp_path / "allowed", key)
    command = ["ssh-keygen", "-Y", "verify", "-n", "edgekit", "-f", allowed, "-I", "ada@example.org"]
    command += ["-s", bundle / "manifest.json.sig"]
    manifest = (bundle / "manifest.json").read_bytes()
    done = subprocess.run(command, input=manifest, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_signed_bundle_is_still_whole_and_may_be_built_over(bundle, key):
    sign_bundle(bundle)
    assert check_files(bundle, read_manifest(bundle)) == ()
    check_destination(bundle)


def test_an_archive_is_signed_and_carries_the_signature(bundle, key, tmp_path):
    archive = tmp_path / "tiny.tar.gz"
    write_archive(bundle, archive)
    made = sign_bundle(archive)
    with open_bundle(archive) as unpacked:
        assert who_signed(unpacked) == made
        check_files(unpacked, read_manifest(unpacked))


def test_a_bundle_that_was_changed_is_not_signed(bundle, key):
    (bundle / "README.md").write_text("other")
    with pytest.raises(VerificationFailed, match=r"README\.md has 5 bytes"):
        sign_bundle(bundle)
    assert signature_of(bundle) is None


def test_who_signed_is_told_by_the_users_own_file(bundle, key, home):
    made = sign_bundle(bundle)
    assert made.key.startswith("ED25519 SHA256:")
    assert who_signed(bundle) == made
    allow(allowed_signers(), key)
    assert who_signed(bundle).name == "ada@example.org"


def test_a_key_that_the_users_file_does_not_have_is_unknown(bundle, key, home):
    sign_bundle(bundle)
    allow(allowed_signers(), make_key(home / "other"))
    assert who_signed(bundle).name is None


def test_an_unsigned_bundle_is_nobodys(bundle, home):
    assert who_signed(bundle) is None


def test_where_a_signature_is_demanded_only_one_of_these_will_do(bundle, key, home):
    own, foreign = allow(home / "own", key), allow(home / "foreign", make_key(home / "other"))
    with pytest.raises(VerificationFailed, match=r"not signed, and .* says who must"):
        who_signed(bundle, own)
    sign_bundle(bundle)
    assert who_signed(bundle, own).name == "ada@example.org"
    with pytest.raises(VerificationFailed, match=r"signed with ED25519 SHA256:.* does not allow"):
        who_signed(bundle, foreign)


def test_a_signer_who_may_sign_other_things_only_does_not_count(bundle, key, home):
    sign_bundle(bundle)
    with pytest.raises(VerificationFailed, match="does not allow"):
        who_signed(bundle, allow(home / "git", key, more='namespaces="git"'))


def test_a_signature_of_another_manifest_or_for_another_purpose_is_refused(bundle, key, tmp_path):
    sign_bundle(bundle)
    manifest = bundle / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"tiny"', '"tony"'))
    with pytest.raises(VerificationFailed, match=r"not one of this manifest .*incorrect signature"):
        who_signed(bundle)
    manifest.write_text(text)
    command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", key, manifest]
    (bundle / "manifest.json.sig").unlink()
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(VerificationFailed, match="not one of this manifest"):
        who_signed(bundle)


@pytest.mark.parametrize("content", [b"", b"no signature\n", b"\xff" * 200, b"A" * 200_000])
def test_what_is_no_signature_is_refused(bundle, home, content):
    (bundle / "manifest.json.sig").write_bytes(content)
    with pytest.raises(VerificationFailed):
        who_signed(bundle)


def test_a_signature_that_is_a_link_is_not_followed(bundle, key, tmp_path):
    sign_bundle(bundle)
    (bundle / "manifest.json.sig").rename(tmp_path / "moved")
    (bundle / "manifest.json.sig").symlink_to(tmp_path / "moved")
    with pytest.raises(VerificationFailed, match="reached by a link"):
        who_signed(bundle)


def test_the_first_key_is_the_one_that_ssh_would_try_first(bundle, key, home):
    make_key(home / ".ssh" / "id_ecdsa", "ecdsa")
    assert sign_bundle(bundle).key.startswith("ECDSA SHA256:")
    assert sign_bundle(bundle, key).key.startswith("ED25519 SHA256:")


def test_without_a_key_the_line_says_how_to_make_one(bundle, home):
    with pytest.raises(BadInput, match="no key to sign with; make one with `ssh-keygen -t ed25519`"):
        sign_bundle(bundle)
    with pytest.raises(BadInput, match="no such key"):
        sign_bundle(bundle, home / "nothing")


def test_a_key_that_only_the_agent_has_signs_too(bundle, home, monkeypatch):
    key = make_key(home / "held")
    with agent(home / "agent", monkeypatch):
        subprocess.run(["ssh-add", "-q", key], check=True, capture_output=True)
        key.unlink()
        shutil.copyfile(f"{key}.pub", home / ".ssh" / "id_ed25519.pub")
        assert who_signed(bundle) is None
        sign_bundle(bundle)
    assert who_signed(bundle, allow(home / "own", key)).name == "ada@example.org"


def test_a_locked_key_where_nobody_can_be_asked_is_one_line(bundle, home):
    key = make_key(home / "locked", passphrase="correct horse")
    done = subprocess.run(
        ["setsid", "-w", os.sys.executable, "-m", "edgekit", "sign", bundle, "--key", key],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    assert done.returncode == 4
    assert "does not sign: " in done.stderr
    assert done.stderr.strip().endswith("unlock it with `ssh-add`, or name another with `--key`")
    assert signature_of(bundle) is None


def test_without_ssh_keygen_the_line_says_what_to_install(bundle, key, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OutsideFailure, match=r"ssh-keygen.*install OpenSSH"):
        sign_bundle(bundle)


@contextlib.contextmanager
def agent(socket, monkeypatch):
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()  # it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield
    finally:
        process.terminate()
        process.wait()
