import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sshd import make_key, public

from edgekit.devices.ssh_host_key import fingerprint, known_keys, preferred_kinds


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = make_key(tmp_path_factory.mktemp("keys") / "key")
    return " ".join(public(path).split()[:2]), path


@pytest.mark.parametrize(
    ("names", "name", "is_found"),
    [
        ("board", "board", True),
        ("other,BOARD", "board", True),
        ("board", "board2", False),
        ("*.local", "pi.local", True),
        ("*.local,!pi.local", "pi.local", False),
        ("pi?.local", "pi4.local", True),
        ("[board]:2222", "[board]:2222", True),
        ("[board]:2222", "b", False),
        ("board", "[board]:2222", False),
        ("|1|bad|bad", "board", False),
        ("|1|bad", "board", False),
    ],
)
def test_names_match_as_openssh_matches_them(tmp_path, key, names, name, is_found):
    file = tmp_path / "known_hosts"
    file.write_text(f"# a comment\n\n{names} {key[0]} somebody\n@cert-authority {name} {key[0]}\n")
    found = known_keys([tmp_path / "none", file], name)
    assert [(line.line, line.kind) for line in found] == ([(3, "ssh-ed25519")] if is_found else [])
    if name.isalnum() and "|" not in names:
        done = subprocess.run(
            ["ssh-keygen", "-F", name, "-f", file], capture_output=True, text=True, check=False
        )
        assert ("found: line 3" in done.stdout) == is_found


def test_the_fingerprint_is_the_one_that_openssh_shows(tmp_path, key):
    file = tmp_path / "known_hosts"
    file.write_text(f"board {key[0]}\n")
    shown = subprocess.run(["ssh-keygen", "-lf", key[1]], capture_output=True, text=True, check=True).stdout
    assert fingerprint(known_keys([file], "board")[0].key) == shown.split()[1]


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_passed_over(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any_known_hosts"
    file.write_text(text)
    assert known_keys([file], "board") == []


def test_no_kind_of_key_is_lost_by_the_order(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    from edgekit.devices.ssh_config import settings_for

    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text("board ssh-rsa AAAA\n")
    kinds = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
    expected = ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256")
    assert preferred_kinds(settings_for("board"), kinds) == expected
