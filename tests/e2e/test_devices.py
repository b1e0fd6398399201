"""One bundle on several devices, as a user types it: this machine, boards over SSH, an emulated board."""

import json
import os
import re
import shutil

import pytest
from bundles import packed
from command import edgekit, refusal
from emulated import requirements_of, site
from emulated_sshd import USER, running_emulated_sshd
from sshd import free_port, running_sshd
from user import assert_nothing_runs_on, user_at

from edgekit.bundle.manifest import read_manifest
from edgekit.devices.visit import bundle_folder

QUICK = ["--quick", "--offline"]
MILLISECONDS = re.compile(r"\d ?(ms|µs)\b")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A device on loopback; a bundle that was there once has its environment there."""
    folder = tmp_path_factory.mktemp("devices")
    with running_sshd(folder / "sshd") as server, user_at(server.make_client(folder / "me")):
        yield server
        assert_nothing_runs_on(server)


def link(source, target):
    """A hard link, or a copy where the temporary folder is on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def row(text, name):
    """The lines of the last table from the one that begins with this name, up to the next name."""
    lines = text[text.rindex("device ") :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(name))
    rest = [line for line in lines[first + 1 :] if line.strip()]
    return " ".join([*lines[first].split(), *rest[0].split()])


def test_the_same_bundle_here_over_ssh_and_emulated_gives_three_rows_with_honest_labels(server, tmp_path):
    packed(tmp_path / "tiny")
    on = ["--on", "local", "--on", server.address, "--on", "container:rpi4"]
    done = edgekit("bench", "tiny", *on, *QUICK, "--count", cwd=tmp_path)
    assert re.match(r"local MEASURED HERE [\d.]+ µs [\d.]+ µs [\d.]+ MB equal", row(done.stdout, "local "))
    there = row(done.stdout, server.address)
    assert re.match(rf"{server.address} MEASURED THERE [\d.]+ µs [\d.]+ µs [\d.]+ MB equal", there)
    emulated = row(done.stdout, "container:rpi4")
    assert "container:rpi4 EMULATED not time not time " in emulated
    assert "emulated Raspberry Pi 4 Model B" in emulated
    section = done.stdout[done.stdout.index("\nEMULATED") : done.stdout.rindex("device ")]
    assert "on an emulated Cortex-A72 the bundle installs, starts, and its 8 golden samples" in section
    assert "million instructions, by 1 thread; 5 inferences differ by" in section
    assert not MILLISECONDS.search(section)
    names = {path.name for path in tmp_path.iterdir()}
    ssh = f"tiny.ssh-root-127.0.0.1-{server.port}.bench"
    assert names == {
        "tiny",
        *("tiny.bench.html", "tiny.bench.json", f"{ssh}.html", f"{ssh}.json"),
        "tiny.container-rpi4.bench.json",
    }
    board = json.loads((tmp_path / "tiny.container-rpi4.bench.json").read_text())
    assert (board["schema"], board["facts"]["arch"]) == ("edgekit.emulated/1", "aarch64")
    assert board["count"]["spread"] < 0.01
    over_ssh = json.loads((tmp_path / f"{ssh}.json").read_text())
    assert over_ssh["device"] == {"name": server.address, "address": server.address}
    assert over_ssh["probe"]["root"] == str(server.root)


def put_environment(board, bundle):
    """Make the bundle's environment there from unpacked wheels: installing takes its time under emulation."""
    manifest = read_manifest(bundle)
    venv = board.root / bundle_folder(manifest, bundle) / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/usr/bin/python3")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    packages = venv / "lib" / "python3.11" / "site-packages"
    shutil.copytree(site(tuple(requirements_of(bundle))), packages, copy_function=link)
    made_for = {"requirements": manifest.requirements, "system_packages": False, "python": "3.11"}
    (venv / "edgekit.json").write_text(json.dumps({"made_for": made_for, "packages": {}}))
    for folder in (venv.parent, *venv.parent.parents):
        if folder == board.home:
            return
        os.chown(folder, USER, USER)


def test_a_board_that_is_emulated_behind_ssh_is_found_out_and_not_timed(tmp_path):
    bundle = packed(tmp_path / "tiny")
    with running_emulated_sshd(tmp_path / "server") as board:
        put_environment(board, bundle)
        with user_at(board.make_client(tmp_path / "me")):
            done = edgekit("bench", "tiny", "--on", board.address, *QUICK, "--json", cwd=tmp_path)
    record = json.loads(done.stdout)
    assert record["schema"] == "edgekit.emulated/1"
    facts = record["facts"]
    assert (facts["arch"], facts["core"], facts["emulated"]) == ("aarch64", "Cortex-A72", True)
    assert facts["board"].startswith("Raspberry Pi 4 Model B")
    assert record["check"]["samples"] == 8
    assert [said[:14] for said in record["mismatches"]] == ["it is emulated"]
    assert not {"latency", "samples_ms", "load_ms", "first_call_ms"} & record.keys()


def test_devices_of_an_inventory_are_asked_by_name_or_all_and_one_that_fails_does_not_stop_the_others(
    server, tmp_path
):
    packed(tmp_path / "tiny")
    closed = f"ssh://root@127.0.0.1:{free_port()}"
    (tmp_path / "devices.yaml").write_text(
        f"devices:\n  garage: {closed}\n  kitchen:\n    address: {server.address}\n    offline: true\n"
    )
    of = ["--inventory", "devices.yaml", "--quick"]
    assert "kitchen" in edgekit("bench", "tiny", *of, "--on", "kitchen", cwd=tmp_path).stdout
    done = edgekit("bench", "tiny", *of, "--on", "all", cwd=tmp_path, expect=4)
    assert "MEASURED THERE" in row(done.stdout, "kitchen")
    assert row(done.stdout, "garage").startswith("garage FAILED - - - -")
    assert f"garage failed: {closed}: 127.0.0.1 port" in " ".join(done.stdout.split())
    assert done.stderr.splitlines()[-1] == "error: 1 of 2 devices failed: garage"
    assert (tmp_path / "tiny.kitchen.bench.html").exists()
    assert not (tmp_path / "tiny.garage.bench.json").exists()
    told = json.loads(edgekit("bench", "tiny", *of, "--on", "all", "--json", cwd=tmp_path, expect=4).stdout)
    assert told["schema"] == "edgekit.devices/1"
    garage, kitchen = told["devices"]
    assert (garage["name"], garage["record"], garage["exit_status"]) == ("garage", None, 4)
    assert "refuses connections" in garage["error"]
    assert (kitchen["address"], kitchen["record"]["schema"]) == (server.address, "edgekit.bench/1")
    line = refusal("bench", "tiny", *of, "--on", "kitchn", cwd=tmp_path)
    assert "there is no device `kitchn` in the inventory devices.yaml; did you mean `kitchen`?" in line


def test_a_long_run_over_ssh_is_judged_by_its_steady_state(server, tmp_path):
    packed(tmp_path / "tiny")
    done = edgekit("bench", "tiny", "--on", server.address, "--offline", "--sustained", "6s", cwd=tmp_path)
    assert "In the long run" in done.stdout
    assert "protocol sustained" in done.stdout
    record = json.loads((tmp_path / f"tiny.ssh-root-127.0.0.1-{server.port}.bench.json").read_text())
    assert record["sustained"]["asked_seconds"] == 6
    assert record["protocol"]["seconds"] > 5


def test_a_bundle_that_was_damaged_is_not_timed_there(server, tmp_path):
    packed(tmp_path / "tiny")
    with (tmp_path / "tiny" / "model.onnx").open("ab") as file:
        file.write(b"x")
    line = refusal("bench", "tiny", "--on", server.address, *QUICK, cwd=tmp_path, expect=5)
    assert "model.onnx has" in line
    assert not list(tmp_path.glob("*.bench.*"))
