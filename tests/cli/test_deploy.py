import json

import pytest
from bundles import run_edgekit
from command import edgekit, refusal
from deploying import Site
from sshd import running_sshd


@pytest.fixture
def server(tmp_path, monkeypatch):
    with running_sshd(tmp_path / "sshd") as server:
        monkeypatch.setenv("HOME", str(server.make_client(tmp_path / "me")))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
        yield server


def rows(done):
    return [line.split() for line in done.stdout.splitlines()]


def test_a_bundle_goes_into_service_on_this_machine_and_is_listed(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    done = edgekit("deploy", bundle, "--on", "local", "--name", "eye", cwd=tmp_path)
    version = (tmp_path / "home" / "services" / "eye" / "current").readlink().name
    assert done.stdout == f"eye {version} is in service on local\n"
    said = [" ".join(line.split()) for line in done.stderr.splitlines()]
    assert "warning: local: it is x86_64, rpi4 is aarch64" in said
    assert "note: local: no service was started: no systemd runs there" in said
    assert any(line.startswith("note: local: the device demands no signature") for line in said)
    listed = rows(edgekit("deploy", "--list", "--on", "local", cwd=tmp_path))
    assert listed[0] == ["device", "service", "state", "version", "role", "deployed", "MB"]
    assert listed[1][:7] == ["local", "eye", "no", "service", "manager", version, "active"]
    assert len(listed) == 2


def test_what_is_there_is_data_for_machines_too(server, bundle, tmp_path):
    site = Site(server.root)
    version = site.deploy(bundle)["version"]
    done = edgekit("deploy", "--list", "--on", server.address, "--json", cwd=tmp_path)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["schema"] == "edgekit.deploy/1"
    (device,) = found["devices"]
    assert device["device"] == server.address
    assert [one["version"] for one in device["services"][0]["versions"]] == [version]


def test_one_device_that_fails_does_not_stop_the_others(server, bundle, tmp_path):
    site = Site(server.root)
    site.deploy(bundle)
    line = refusal(
        "deploy", "--list", "--on", "ssh://gone.invalid", "--on", server.address, cwd=tmp_path, expect=4
    )
    assert line == "--on: 1 device of 2 failed: ssh://gone.invalid; see the table, and give those again"
    both = ["--on", "ssh://gone.invalid", "--on", server.address]
    done = edgekit("deploy", "--list", *both, "--json", cwd=tmp_path, expect=4)
    failed, listed = json.loads(done.stdout)["devices"]
    assert (failed["device"], failed["exit_status"]) == ("ssh://gone.invalid", 4)
    assert failed["error"]
    assert listed["services"][0]["name"] == "tiny"


def test_a_way_back_that_there_is_not_is_one_line(server, bundle, tmp_path):
    assert "no service is there; deploy a bundle first" in refusal(
        "deploy", "--rollback", "--on", server.address, cwd=tmp_path
    )
    Site(server.root).deploy(bundle)
    assert "`tiny` has no previous version" in refusal(
        "deploy", "--rollback", "--on", server.address, cwd=tmp_path
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["BUNDLE"], "--on: no device is given; write --on ssh://pi@raspberrypi.local"),
        (["--on", "local"], "no bundle is given; write edgekit deploy BUNDLE --on DEVICE"),
        (
            ["--on", "local", "--list", "--rollback"],
            "`--rollback` and `--list` exclude one another; give one of them",
        ),
        (
            ["BUNDLE", "--on", "local", "--list"],
            "BUNDLE: `--list` takes no bundle; leave it out, or leave out `--list`",
        ),
        (
            ["--on", "local", "--rollback", "--listen", "127.0.0.1:80"],
            "--listen: only a deployment changes the address; give the bundle as well",
        ),
        (["BUNDLE", "--on", "local"], "BUNDLE: no such bundle; give the folder that `edgekit build` wrote"),
        (
            ["BUNDLE", "--on", "local", "--listen", "0.0.0.0:80"],
            "--listen: `0.0.0.0:80` is no address to listen on; write unix:/run/NAME.sock or 127.0.0.1:8080",
        ),
        (
            ["BUNDLE", "--on", "local", "--name", "a/b"],
            "--name: `a/b` cannot be the name of a service; give one of letters, digits, `.`, `_` and `-`",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(arguments, line, tmp_path):
    assert refusal("deploy", *arguments, cwd=tmp_path) == line


def test_help_shows_an_example():
    assert "edgekit deploy --rollback --on ssh://" in run_edgekit("deploy", "--help").stdout
