import json
import re
from html.parser import HTMLParser

import pytest
import records

from edgekit.errors import OutsideFailure
from edgekit.report.bench_page import bench_page
from edgekit.report.build_page import build_page
from edgekit.report.html import write_bench_report, write_build_report
from edgekit.report.json import build_json
from edgekit.report.markup import VOID

BENCHES = {
    "here": lambda: (records.bench(), records.manifest()),
    "target": lambda: (records.bench(machine=records.PI4, warnings=["busy"]), records.manifest()),
    "short": lambda: (records.bench(samples=records.latencies(50)), records.manifest()),
    "sustained": lambda: (records.sustained(machine=records.PI4), records.manifest()),
    "one": lambda: (records.bench(samples=[2.5]), records.manifest(budget=records.Cost())),
}
PAGES = {
    **{f"build {name}": lambda make=make: build_page(make()) for name, make in records.BUILDS.items()},
    **{f"bench {name}": lambda make=make: bench_page(*make()) for name, make in BENCHES.items()},
}


class Reader(HTMLParser):
    """Notes what a page holds, and whether every element is closed where it must be."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text, self.ids, self.links = [], [], "", [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("src", "href")]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_is_well_formed_and_needs_neither_scripts_nor_the_network(name):
    page = PAGES[name]()
    found = read(page)
    assert page.startswith("<!doctype html>")
    assert "script" not in found.tags
    assert found.links == ["data:,"]
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg|http-equiv", "", page)
    assert len(found.ids) == len(set(found.ids))
    assert "Content-Security-Policy" in page


@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_shows_no_number_that_is_none_and_no_control_character(name):
    shown = read(PAGES[name]()).text
    assert shown.replace("\n", "").isprintable()
    assert not re.search(r"\b(nan|NaN|None|inf)\b", shown.split("What the words mean")[0].replace("null", ""))


def test_hostile_names_are_shown_as_they_are_and_do_nothing():
    found = read(PAGES["build hostile"]())
    assert "<script>alert('x')</script> & \"q\" \ufffd[31mred" in found.text


def test_what_stands_between_backticks_is_code_and_keeps_its_distance():
    assert "<code>int8</code> fits the budget" in PAGES["build predicted"]()


def test_a_build_page_says_the_outcome_and_how_each_figure_was_got():
    text = read(PAGES["build predicted"]()).text
    assert text.index("PREDICTED") < text.index("12.1 ms") < text.index("Candidates")
    for part in ("Budget", "Quantization routes", "Parity of each stage", "Recipe of int8", "Environment"):
        assert part in text
    assert "cost model of profile rpi4" in text
    assert "3.61x smaller than float32" in text


def test_a_build_page_shows_every_runtime_with_its_figures_or_why_it_has_none():
    found = read(PAGES["build predicted"]())
    section = found.text.partition("Runtimes")[2].partition("Candidates")[0]
    for words in (
        "44.7 ms",
        "31.3 to 67.1 ms",
        "1.17x",
        "21 MB",
        "124.8 dB",
        "tflite, 4 threads",
        "the reference",
    ):
        assert words in section
    assert "1.17 times the time of onnxruntime, predicted" in section
    assert "not tried: network.py:12: openvino has no operator Bucketize" in section
    assert "Runtimes" not in read(PAGES["build bare"]()).text


def test_a_build_as_json_holds_every_runtime():
    rivals = json.loads(build_json(records.build()))["runtimes"]
    assert [(one["runtime"], one["chosen"]) for one in rivals] == [
        ("tflite", False),
        ("onnxruntime", True),
        ("openvino", False),
    ]
    assert rivals[0]["ratio"] == 1.17
    assert rivals[0]["cost"]["latency_p90_ms"]["how"] == "predicted"
    assert rivals[0]["parity"]["snr_db"] == 124.8
    assert (rivals[2]["threads"], rivals[2]["ratio"], rivals[2]["cost"]) == (None, None, {})


def test_a_stage_below_its_floor_is_called_diverging():
    parity = records.Parity(stage="a -> b", snr_db=3.0, max_abs=1.0, top1=0.2, floor_db=60.0)
    tried = records.replace(records.INT8, parities=(parity,))
    text = read(build_page(records.build(tried=(tried,), shipped=0))).text
    assert "diverges" in text


def test_a_benchmark_on_another_machine_says_first_whose_figures_these_are():
    text = read(PAGES["bench here"]()).text
    assert "MEASURED HERE" in text
    assert "these are the figures of this machine, not of rpi4" in text
    assert "predicted for rpi4 by the build: latency p50 10.9 ms and latency p90 12.1 ms" in text
    assert "The limits that the bundle was built for" not in text


def test_a_benchmark_on_the_target_is_judged_against_the_budget():
    text = read(PAGES["bench target"]()).text
    assert "MET" in text.split("Budget")[0]
    assert "measured on rpi4: Raspberry Pi 4 Model B Rev 1.4, aarch64, 4 Cortex-A72 cores" in text
    assert "The limits that the bundle was built for, rpi4" in text
    assert "Warnings: something else shaped the timing" in text


def test_a_sustained_benchmark_shows_what_became_of_latency_temperature_and_clock():
    text = read(PAGES["bench sustained"]()).text
    section = text.partition("In the long run")[2].partition("How it was measured")[0]
    assert "Steady from 3 min 0 s on; latency p50 there is 1.30 times that of the first minute" in section
    for title in ("Latency over time", "Temperature", "Clock", "How often each latency came"):
        assert title in section
    assert "Latency from the first run to the last" not in text
    silent = read(bench_page(records.sustained(warm=False), records.manifest())).text
    assert "Latency over time" in silent
    assert "Temperature" not in silent


def test_a_percentile_that_the_runs_cannot_carry_is_not_given():
    text = read(PAGES["bench short"]()).text
    assert "50 runs cannot carry it, at least 662 are needed" in text
    assert text.count("not given") >= 2


def test_reports_are_written_whole_or_not_at_all(tmp_path):
    write_build_report(records.build(), tmp_path / "new" / "report.html")
    write_bench_report(records.bench(), records.manifest(), tmp_path / "new" / "bench.html")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["bench.html", "report.html"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutsideFailure, match="cannot be written") as refusal:
        write_build_report(records.build(), tmp_path / "folder")
    assert refusal.value.exit_status == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", list(records.BUILDS))
def test_a_build_as_json_is_strict_and_names_its_schema(name):
    data = json.loads(build_json(records.BUILDS[name]()), parse_constant=pytest.fail)
    assert data["schema"] == "edgekit.build/1"
    assert data["outcome"] in ("MET", "PREDICTED", "NOT MET", "UNPROVEN")
    assert len(data["tried"]) == len(records.BUILDS[name]().tried)


def test_json_holds_the_figures_with_their_origin():
    figure = json.loads(build_json(records.build()))["tried"][1]["cost"]["latency_p90_ms"]
    assert figure == {
        "value": 12.1,
        "how": "predicted",
        "source": "cost model of profile rpi4",
        "low": pytest.approx(8.47),
        "high": pytest.approx(18.15),
    }
