import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundles import packed, run_edgekit
from sshd import free_port

from edgekit.bundle.archive import write_archive
from edgekit.cli.bench import beside
from edgekit.cost import Cost, Figure
from edgekit.target import load_target


def test_figures_are_printed_and_a_report_and_the_raw_samples_lie_beside_the_bundle(bundle):
    start = time.monotonic()
    done = run_edgekit("bench", bundle, "--quick", "--threads", "1")
    assert done.returncode == 0
    assert time.monotonic() - start < 60
    for words in (
        "latency p50",
        "latency p90",
        "latency p99",
        "first call",
        "to load the model",
        "peak memory",
    ):
        assert words in done.stdout
    page, figures = bundle.parent / "tiny.bench.html", bundle.parent / "tiny.bench.json"
    assert f"report: {page}" in done.stdout
    assert f"figures: {figures}" in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    record = json.loads(figures.read_text())
    assert len(record["samples_ms"]) == record["latency"]["n"]
    assert run_edgekit("verify", bundle).returncode == 0


def test_figures_of_another_machine_are_called_so_and_not_held_against_the_budget(bundle):
    text = run_edgekit("bench", bundle, "--quick").stdout
    assert "MEASURED HERE" in text
    assert "not of rpi4" in text
    assert "Against the budget" not in text


KEPT = Cost(drop=Figure(value=0.0, how="measured", source="a test"))


@pytest.mark.parametrize(
    ("limit", "cost", "status", "words"),
    [
        (1000.0, KEPT, 0, "MET"),
        (0.0001, KEPT, 3, "the budget of x86-cpu: latency p90"),
        (1000.0, Cost(), 3, "the budget of x86-cpu: nothing was measured or predicted for quality drop"),
    ],
)
def test_figures_of_the_target_itself_are_held_against_its_budget(tmp_path, limit, cost, status, words):
    limits = {"latency_p90_ms": limit, "peak_memory_mb": 1000.0, "size_mb": 1.0}
    target = load_target("x86-cpu").with_limits(limits, "a test")
    done = run_edgekit("bench", packed(tmp_path / "here", target=target, cost=cost), "--quick")
    assert "Against the budget of x86-cpu" in done.stdout
    assert done.returncode == status
    assert words in (done.stderr if status else done.stdout)


def test_json_is_the_record_and_nothing_else(bundle):
    done = run_edgekit("bench", bundle, "--quick", "--json")
    assert json.loads(done.stdout)["schema"] == "edgekit.bench/1"
    assert done.stderr == ""


def test_an_archive_is_measured_and_the_report_goes_where_it_is_asked(bundle, tmp_path):
    archive, page = tmp_path / "tiny.tar.gz", tmp_path / "reports" / "page.html"
    write_archive(bundle, archive)
    done = run_edgekit("bench", archive, "--quick", "--report", page)
    assert done.returncode == 0
    assert page.exists()
    assert page.with_suffix(".json").exists()


def test_figures_are_shown_even_if_the_report_cannot_be_written(bundle):
    done = run_edgekit("bench", bundle, "--quick", "--report", "/proc/edgekit/page.html")
    assert "latency p50" in done.stdout
    assert done.returncode == 4
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize(
    ("bundle_name", "page"),
    [
        ("dist/tiny", "dist/tiny.bench.html"),
        ("dist/tiny/", "dist/tiny.bench.html"),
        ("dist/tiny.tar.gz", "dist/tiny.bench.html"),
        ("tiny", "tiny.bench.html"),
    ],
)
def test_the_reports_usual_place_is_beside_the_bundle(bundle_name, page):
    assert beside(Path(bundle_name)) == Path(page)


def test_each_devices_report_has_its_name_beside_the_bundle():
    name = "ssh://pi@kitchen.local:2222"
    assert beside(Path("dist/tiny"), name) == Path("dist/tiny.ssh-pi-kitchen.local-2222.bench.html")
    assert beside(Path("tiny.tar.gz"), "container:rpi4") == Path("tiny.container-rpi4.bench.html")


def test_json_of_several_devices_holds_a_record_or_an_error_for_each(bundle):
    closed = f"ssh://root@127.0.0.1:{free_port()}"
    done = run_edgekit("bench", bundle, "--on", "local", "--on", closed, "--quick", "--json")
    assert done.returncode == 4
    assert done.stderr == f"error: 1 of 2 devices failed: {closed}\n"
    found = json.loads(done.stdout)
    assert found["schema"] == "edgekit.devices/1"
    here, there = found["devices"]
    assert (here["name"], here["record"]["schema"]) == ("local", "edgekit.bench/1")
    assert "error" not in here
    assert (there["name"], there["address"], there["record"], there["exit_status"]) == (
        closed,
        closed,
        None,
        4,
    )
    assert "refuses connections; start the SSH server there" in there["error"]


def test_the_reports_usual_place_is_beside_the_folder_in_which_one_stands(tmp_path, monkeypatch):
    (tmp_path / "tiny" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "tiny")
    assert beside(Path()) == tmp_path / "tiny.bench.html"
    monkeypatch.chdir(tmp_path / "tiny" / "deeper")
    assert beside(Path("..")) == tmp_path / "tiny.bench.html"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quick", "--strict"], "exclude one another"),
        (["--quick", "--threads", "1000"], "1000 threads asked for"),
        (["--threads", "0"], "0 is not in the range"),
        (["--report", "x.json"], "the report is HTML"),
        (["--quick", "--sustained", "1m"], "exclude one another"),
        (["--sustained", "10"], "--sustained: `10` has no unit"),
        (["--count"], "--count: instructions are counted in an emulated container only; add for example"),
        (["--on", "local", "--on", "container:rpi4", "--report", "x.html"], "the reports of several devices"),
        (["--on", "pi@board"], "--on: `pi@board` is no device; write local, ssh://pi@raspberrypi.local or"),
        (["--on", "ssh://pi:secret@board"], "--on: a password in an address"),
        (["--on", "container:rpi44"], "rpi44"),
        (["--on", "kitchen"], "--on: there is no device `kitchen`"),
        (["--on", "all"], "there is no inventory; write `devices:`"),
        (["--on", "all", "--inventory", "none.yaml"], "none.yaml"),
        (["--on", "ssh://127.0.0.1:1", "--accept-host-key", "yes"], "--accept-host-key"),
    ],
)
def test_bad_options_are_refused(bundle, options, words, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path))
    done = run_edgekit("bench", bundle, *options)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [done.stderr.strip()]


def test_a_damaged_bundle_is_not_timed(bundle):
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    done = run_edgekit("bench", bundle, "--quick")
    assert done.returncode == 5
    assert "model.onnx has" in done.stderr
    assert not (bundle.parent / "tiny.bench.html").exists()


def test_help_shows_an_example_and_imports_nothing_heavy():
    done = run_edgekit("bench", "--help")
    assert "edgekit bench dist/digits-rpi4\n" in done.stdout
    program = (
        "import sys; sys.argv = ['edgekit', 'bench', '--help']\n"
        "try:\n    from edgekit.cli.main import main; main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'torch', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.splitlines()[-1] == "[]"
