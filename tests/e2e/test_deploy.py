"""`edgekit deploy` as a user types it: over SSH, to a machine with systemd that has no internet."""

import json
import shutil
import socket
import time

import pytest
from booted import UID, USER, booted
from bundles import packed
from command import edgekit, refusal
from deploying import digest, rewritten
from sshd import make_key, public

DIES = '\n\ndef serve(runner, bundle, options):\n    raise SystemExit("the sensor is missing")\n'


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """It, with an SSH server that lets the user in by a key."""
    srv, home = tmp_path / "srv", tmp_path / "me"
    (srv / "ssh").mkdir(parents=True)
    (home / ".ssh").mkdir(parents=True)
    host_key, key = make_key(srv / "ssh" / "host_key"), make_key(home / ".ssh" / "id_ed25519")
    (srv / "ssh" / "authorized_keys").write_text(public(key))
    (srv / "ssh" / "config").write_text(
        "HostKey /srv/ssh/host_key\nAuthorizedKeysFile /srv/ssh/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nSetEnv OMP_NUM_THREADS=1\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with booted(srv, network="bridge") as machine:
        machine.run("mkdir", "-m", "755", "/run/sshd")
        machine.run("systemd-run", "--unit", "sshd", "/usr/sbin/sshd", "-D", "-e", "-f", "/srv/ssh/config")
        kind_and_key = " ".join(public(host_key).split()[:2])
        (home / ".ssh" / "known_hosts").write_text(f"{machine.address} {kind_and_key}\n")
        end = time.monotonic() + 30
        while not greets(machine.address):
            assert time.monotonic() < end
            time.sleep(0.1)
        machine.leave_the_internet()
        yield machine


def greets(host):
    try:
        with socket.create_connection((host, 22), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


@pytest.mark.parametrize("user", [USER, "root"])
def test_a_bundle_is_served_there_and_a_bad_one_does_not_take_its_place(machine, user, tmp_path):
    on = ["--on", f"ssh://{user}@{machine.address}", "--offline"]
    runtime = "/run" if user == "root" else f"/run/user/{UID}"
    good = packed(tmp_path / "good")
    serve = good / "runner" / "serve.py"
    bad = rewritten(shutil.copytree(good, tmp_path / "bad"), "runner/serve.py", serve.read_text() + DIES)
    done = edgekit("deploy", good, *on, cwd=tmp_path)
    assert done.stdout == (
        f"tiny {digest(good)[:12]} is in service on ssh://{user}@{machine.address}, "
        f"answers on unix:{runtime}/edgekit/tiny/http.sock\n"
    )
    line = refusal("deploy", bad, *on, cwd=tmp_path, expect=4)
    assert f"{digest(good)[:12]} is in service again" in line
    assert "the sensor is missing" in line
    (device,) = json.loads(edgekit("deploy", "--list", *on, "--json", cwd=tmp_path).stdout)["devices"]
    (service,) = device["services"]
    assert service["service"] == "active"
    assert [one["version"] for one in service["versions"]] == [digest(good)[:12]]
