import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.ssh_config import settings_for, split_jump
from edgekit.errors import BadInput

KEYS = """
Host Match Include HostName Port User IdentityFile IdentitiesOnly IdentityAgent ProxyJump ProxyCommand Any
UserKnownHostsFile HostKeyAlias HashKnownHosts ConnectTimeout ServerAliveInterval CanonicalizeHostname
""".split()
VALUES = st.sampled_from(
    ["yes", "none", "7", "*", "!*", "host", "all", '"', "%h", "a,b", "~/x", "/**", "exec x"]
)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh" / "config"


def test_without_a_configuration_the_defaults_are_those_of_openssh(config, tmp_path):
    found = settings_for("board", user="pi")
    assert (found.host, found.port, found.user, found.jump, found.command) == ("board", 22, "pi", (), None)
    assert [key.name for key in found.keys] == ["id_rsa", "id_ecdsa", "id_ed25519"]
    assert found.known_hosts[0] == tmp_path / ".ssh" / "known_hosts"
    assert found.known_name == "board"


SAMPLE = """
Include more/*.conf
Host pi*
  User pi
  Port 2222
  IdentityFile ~/.ssh/%h.key
Match host pi4
  ConnectTimeout 6
Match Originalhost pi4 user root
  ConnectTimeout 7
Host *
  User nobody
  ServerAliveInterval 9
  ProxyJump none
"""


def test_blocks_and_included_files_count_as_in_openssh(config, tmp_path):
    config.write_text(SAMPLE)
    (tmp_path / ".ssh" / "more").mkdir()
    (tmp_path / ".ssh" / "more" / "a.conf").write_text("Host pi4\n  HostName pi4.example.org\n  User root\n")
    for name in ("pi4", "pi5", "board"):
        found = settings_for(name)
        command = ["ssh", "-G", "-F", config_with_absolute_include(config), name]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        expected = dict(line.split(" ", 1) for line in lines if " " in line)
        assert (found.host, str(found.port), found.user) == (
            expected["hostname"],
            expected["port"],
            expected["user"],
        )
        assert found.keep_alive_s == int(expected["serveraliveinterval"]) == 9
        assert found.connect_s == (
            15 if expected["connecttimeout"] == "none" else int(expected["connecttimeout"])
        )
        assert found.jump == ()
    assert settings_for("pi4").keys[0] == tmp_path / ".ssh" / "pi4.example.org.key"


def config_with_absolute_include(config):
    """OpenSSH looks for its files in the home of /etc/passwd, not in HOME."""
    copy = config.with_name("copy")
    copy.write_text(config.read_text().replace("Include ", f"Include {config.parent}/"))
    return copy


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("board", ("board", None, None)),
        ("pi@board:2222", ("board", "pi", 2222)),
        ("ssh://pi@[::1]:22", ("::1", "pi", 22)),
    ],
)
def test_a_hop_is_taken_apart(text, hop):
    assert split_jump(text) == hop


def test_a_hop_that_is_none_is_refused():
    with pytest.raises(BadInput, match=r"ProxyJump in ~/\.ssh/config"):
        split_jump("a b")


LINES = st.tuples(st.sampled_from(KEYS), st.sampled_from([" ", "=", " = "]), VALUES | st.text(max_size=20))


@given(st.lists(LINES.map("".join) | st.text(max_size=20), max_size=8))
def test_any_configuration_gives_settings_or_is_refused_in_one_line(tmp_path_factory, lines):
    home = tmp_path_factory.getbasetemp() / "any_config"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".ssh" / "config").write_text("\n".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        try:
            text = settings_for("board").host
        except BadInput as refused:
            text = str(refused)
    assert "\n" not in text
