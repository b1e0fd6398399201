import json
import re

import click
import pytest
from click.testing import CliRunner

from edgekit.cli.devices import complete_device, device_options, manner_from
from edgekit.cli.probe import probe
from edgekit.errors import BadInput
from edgekit.progress import Progress


@pytest.fixture(autouse=True)
def nothing_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def run(*arguments, **more):
    return CliRunner().invoke(probe, list(arguments), catch_exceptions=False, **more)


def test_this_machine_is_shown_in_groups():
    done = run()
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    groups = ["Board", "Processor", "Clocks and heat", "System", "Python and runtimes"]
    assert [line for line in lines if line in groups] == groups
    assert lines[1].startswith("local: ")
    assert re.search(r"^system +\S.*, 64 bit", done.stdout, re.MULTILINE)
    assert re.search(r"^Python 3\.\d+\.\d+ +/", done.stdout, re.MULTILINE)


def test_what_is_not_what_the_target_says_comes_before_everything_else(tmp_path):
    done = run("--target", "rpi4")
    lines = done.stdout.splitlines()
    assert "warning: it is x86_64, rpi4 is aarch64" in lines
    assert lines.index("warning: it is x86_64, rpi4 is aarch64") < lines.index("Board")
    assert run("--target", "x86-cpu").stdout.count("warning") == 0
    assert "it is what x86-cpu says, as far as its system tells" in run("local", "-t", "x86-cpu").stdout


def test_json_holds_every_fact_and_nothing_is_put_on_the_device(tmp_path):
    done = run("local", "--json", "--target", "rpi4")
    record = json.loads(done.stdout)
    assert (record["schema"], record["device"], record["target"]) == ("edgekit.probe/1", "local", "rpi4")
    assert record["warnings"][0] == "it is x86_64, rpi4 is aarch64"
    assert record["facts"]["root"] == str(tmp_path / "home")
    assert record["facts"]["pythons"][0]["bits"] == 64
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["board"], "DEVICE: `board` is no device; write local, ssh://"),
        (["ssh://pi:secret@board"], "DEVICE: a password in an address"),
        (["--target", "rpi44"], "there is no target `rpi44`"),
    ],
)
def test_what_is_no_device_or_target_is_refused(arguments, words):
    with pytest.raises(BadInput) as refused:
        run(*arguments)
    assert str(refused.value).startswith(words)


def test_the_shell_completes_devices():
    context = click.Context(probe)

    def offered(text):
        return [item.value for item in complete_device(context, probe.params[0], text)]

    assert offered("l") == ["local"]
    assert {"container:rpi4", "container:rpi5"} <= set(offered("container:r"))
    assert offered("s") == ["ssh://"]
    assert offered("x") == []


def test_the_options_of_devices_become_the_manner():
    seen = []

    @click.command()
    @device_options
    def command(**options):
        seen.append(manner_from(options, Progress()))

    CliRunner().invoke(command, ["--offline", "--accept-host-key", "SHA256:abc"], catch_exceptions=False)
    CliRunner().invoke(command, [], catch_exceptions=False)
    assert [(manner.offline, manner.accept_host_key) for manner in seen] == [
        (True, "SHA256:abc"),
        (False, None),
    ]
    assert [manner.ask for manner in seen] == [None, None], "nobody can answer where there is no terminal"
