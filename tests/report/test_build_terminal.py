import io
import os
from dataclasses import replace

import pytest
import records
from rich.console import Console

from edgekit.graph.layers import Layer
from edgekit.report.terminal import print_build, print_plan
from edgekit.report.terminal_tables import routes_table, runtimes_table
from edgekit.result import Plan


def printed(show, *arguments, width=80, **more):
    """What a piped standard output gets."""
    stream = io.StringIO()
    show(*arguments, Console(file=stream, width=width, highlight=False), **more)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


WHOLE = """
PREDICTED  examples/digits/task.py on rpi4: `int8` fits the budget, but latency
p90 is predicted, not measured
accuracy 98.09 % on 1000 samples
latency comes from the cost model of profile rpi4: to measure it, run `python
run.py --bench` in the bundle there
on this machine, which is not the target: latency p50 1.34 ms and latency p90
1.51 ms

`int8` against the budget
limit              at most   figure            how         verdict
────────────────────────────────────────────────────────────────────
latency p90        20 ms     12.1 ms           predicted   PREDICTED
                             8.47 to 18.1 ms
peak memory        256 MB    41.5 MB           measured    MET
artifact size      4 MB      0.31 MB           measured    MET
accuracy drop      1.00 %    0.31 %            measured    MET
worst-class drop   3.00 %    0.62 %            measured    MET

Runtimes, with the network as it is
runtime                  latency p90       memory    size      time    chosen
─────────────────────────────────────────────────────────────────────────────
tflite, 4 threads        44.7 ms           21 MB     1.12 MB   1.17x   no
                         31.3 to 67.1 ms
onnxruntime, 4 threads   38.2 ms           48 MB     1.12 MB   1.00x   yes
                         26.7 to 57.3 ms
openvino                 unknown           unknown   unknown   -       no

- tflite: 1.17 times the time of onnxruntime, predicted
- onnxruntime: fastest with 4 threads, predicted
- openvino: not tried: network.py:12: openvino has no operator `Bucketize`

Candidates, mildest first
candidate              size      latency p90       memory    drop      outcome
────────────────────────────────────────────────────────────────────────────────
float32                1.12 MB   38.2 ms           48 MB     0.00 %    NOT MET
                                 26.7 to 57.3 ms
int8                   0.31 MB   12.1 ms           41.5 MB   0.31 %    PREDICTED
                                 8.47 to 18.1 ms                       shipped
pruned to 50% + int8   0.17 MB   6.1 ms            unknown   unknown   not built
                                 4.3 to 9.2 ms

- float32: latency p90 38.2 ms (26.7 ms to 57.3 ms) predicted, limit 20 ms
- int8: the mildest recipe inside the budget
- pruned to 50% + int8: not needed: a milder recipe fits

Routes of `int8`, against float32 on this machine, 1 thread
route         speed          size            drop     left in float   kept
──────────────────────────────────────────────────────────────────────────
ort-static    2.31x faster   3.61x smaller   0.31 %   0               yes
nncf          2.06x faster   3.58x smaller   0.31 %   2               no
ort-dynamic   3.23x slower   3.90x smaller   0.12 %   -               no

- ort-static: fastest inside the drop
- nncf: 1.12x slower than ort-static at the same drop
- ort-dynamic: slower than float32 here

onnxruntime, 4 threads; built in 1 min 33 s on AMD EPYC, 2 cores, x86_64
bundle: dist/digits-rpi4
report: dist/digits-rpi4/report.html
next:
  edgekit bench dist/digits-rpi4  # measure it on this machine
  cd dist/digits-rpi4 && python run.py --check  # on the device, once the folder is there"""


def test_a_build_says_the_outcome_first_and_what_to_type_at_last():
    report = records.Path("dist/digits-rpi4/report.html")
    assert printed(print_build, records.build(), report=report) == WHOLE


@pytest.mark.parametrize("width", [30, 45, 60, 80, 140])
@pytest.mark.parametrize("name", list(records.BUILDS))
def test_no_line_is_cut_off_or_longer_than_the_window(name, width):
    text = printed(print_build, records.BUILDS[name](), width=width)
    assert "…" not in text
    assert text.replace("\n", "").isprintable()
    body = text.split("\nbundle: ")[0]  # paths and commands below are wrapped by the terminal itself
    assert all(len(line) <= width for line in body.splitlines())


@pytest.mark.parametrize(
    ("name", "outcome", "sentence"),
    [
        ("met", "MET", "`int8` keeps every limit of the budget, and each was measured"),
        (
            "missed",
            "NOT MET",
            "`int8` comes nearest: latency p90 is 3.05 times the limit and accuracy drop is 1.3",
        ),
        ("unproven", "UNPROVEN", "`int8` may or may not fit the budget: latency p90 is not decided"),
        ("bare", "MET", "`float32` was built; no limit was named"),
    ],
)
def test_the_first_line_is_the_outcome_in_a_word_and_a_sentence(name, outcome, sentence):
    text = printed(print_build, records.BUILDS[name](), width=400)
    first = text.splitlines()[1]
    assert first.startswith(f"{outcome}  examples/digits/task.py on rpi4: ")
    assert sentence in first


def test_a_missed_budget_says_what_would_meet_it():
    text = printed(print_build, records.missed_build(), width=200)
    assert "To meet the budget\n- latency p90 61 ms" in text
    assert "warning: no pretrained weights for `resnet18` could be had" in text
    assert "from the cache: convert and quantize" in text


def test_without_limits_the_options_that_name_some_are_listed():
    text = printed(print_build, records.bare_build())
    assert "name limits with `--latency`, `--memory`, `--size`, `--max-drop`" in text
    assert "quality unknown: the task has neither `evaluate` nor calibration data" in text


@pytest.mark.parametrize("kind", ["top-1 agreement", "signal-to-noise"])
def test_fidelity_is_never_called_accuracy(kind):
    quality = records.Quality(kind=kind, score=0.99, drop=0.01)
    tried = replace(records.INT8, quality=quality)
    text = printed(print_build, records.build(tried=(tried,), shipped=0))
    assert "fidelity" in text
    assert "accuracy" not in text


def test_a_folder_with_spaces_can_be_copied_from_the_commands():
    text = printed(print_build, records.build(bundle=records.Path("my dist/it's")))
    assert """cd 'my dist/it'"'"'s' && python run.py --check""" in text


def test_colours_are_shown_on_a_terminal_and_left_out_with_no_color(monkeypatch):
    def on_terminal():
        stream = io.StringIO()
        console = Console(file=stream, width=80, force_terminal=True, highlight=False, _environ=os.environ)
        print_build(records.build(), console)
        return stream.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;36mPREDICTED" in on_terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;36m" not in on_terminal()
    assert "PREDICTED" in on_terminal()


def layer(name, macs):
    return Layer(
        name=name,
        op="Conv",
        kind="dense",
        macs=macs,
        params=10,
        input_elements=10,
        output_elements=10,
        precision="float32",
        channels=8,
    )


def plan(layers):
    built = records.build()
    candidates = [replace(item, realised=False, outcome=None, routes=()) for item in built.tried]
    return Plan(
        task=built.task,
        target=built.target,
        profile=built.profile,
        runtime=built.runtime,
        threads=built.threads,
        budget=built.budget,
        candidates=tuple(candidates),
        layers=tuple(layers),
        notes=("pruning is not offered: there is no training data to recover with",),
    )


def test_a_plan_shows_the_budget_the_candidates_and_the_slowest_layers():
    layers = [(layer("\x1b[2J<stem>", 2_000_000), 3.0), (layer("head", 1000), 1.0)]
    text = printed(print_plan, plan(layers))
    assert text.startswith(
        "Plan for examples/digits/task.py on rpi4\n"
        "nothing was built; `edgekit build` with the same arguments builds the first that\n"
        "fits\n"
        "every figure is predicted by the cost model of profile rpi4\n"
        "what memory and quality will be, a build measures\n"
        "budget: at most latency p90 20 ms, peak memory 256 MB, artifact size 4 MB,\n"
        "quality drop 1.00 % and worst-class drop 3.00 %\n"
    )
    assert text.endswith(
        "Slowest layers, float32, predicted\n"
        "layer        op     kind    M MACs   time       share\n"
        "──────────────────────────────────────────────────────\n"
        "\ufffd[2J<stem>   Conv   dense   2.00     3.000 ms   75.0 %\n"
        "head         Conv   dense   0.00     1.000 ms   25.0 %\n"
        "\n"
        "note: pruning is not offered: there is no training data to recover with"
    )


def test_a_plan_shows_the_runtimes_and_the_one_that_it_is_for():
    text = printed(print_plan, replace(plan([]), runtimes=records.RIVALS), width=160)
    (row,) = [line for line in text.splitlines() if line.startswith("onnxruntime")]
    assert row.endswith("yes      fastest with 4 threads, predicted")
    (lost,) = [line for line in text.splitlines() if line.startswith("openvino")]
    assert lost.split()[:5] == ["openvino", "unknown", "unknown", "unknown", "-"]
    assert lost.endswith("not tried: network.py:12: openvino has no operator `Bucketize`")


def test_a_target_with_one_runtime_has_no_table_of_runtimes():
    assert "Runtimes" not in printed(print_build, records.bare_build())
    assert "onnxruntime, 4 threads; built in 0.2 s" in printed(print_build, records.bare_build())


def test_at_sixty_columns_no_name_of_a_runtime_is_broken():
    table = runtimes_table(records.RIVALS, records.BUDGET, 60)
    text = printed(lambda table, console: console.print(table), table, width=60)
    assert all(any(line.startswith(rival.runtime) for line in text.splitlines()) for rival in records.RIVALS)


def test_at_sixty_columns_no_name_of_a_route_is_broken():
    (routes,) = [tried.routes for tried in records.BUILDS["predicted"]().tried if tried.routes]
    text = printed(lambda table, console: console.print(table), routes_table(routes, 60), width=60)
    assert all(any(line.startswith(route.name) for line in text.splitlines()) for route in routes)
    assert " kept" in text
