"""Which runtime, and how many threads: a real conversion for each, and the figures that decide."""

from dataclasses import replace

import onnx
import pytest
import yaml
from command import SMALL
from networks import TinyCnn, noise, task_of
from onnx import numpy_helper, parser

from edgekit.bakeoff import SAME_SPEED, bake_off
from edgekit.errors import BadInput
from edgekit.graph.layers import describe
from edgekit.pipeline import Request, plan
from edgekit.plan.candidates import unchanged
from edgekit.plan.recipe import Recipe
from edgekit.progress import Progress
from edgekit.realise import float_graph
from edgekit.target import load_profile, load_target
from edgekit.workshop import open_shop

RATES = load_profile("rpi4").cost_model["onnxruntime"].model_dump(exclude_none=True)
SHARES = ("dense", "pointwise", "depthwise")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A target like rpi4 on whose board OpenVINO is so many times as fast as onnxruntime."""

    def make(*runtimes, faster=3.0, memory=None, **rates):
        usual = {**RATES, **rates}
        fast = {
            **usual,
            **{name: usual[name] * faster for name in (*SHARES, "memory_gbs")},
            "overhead_us": usual["overhead_us"] / faster,
        }
        data = {
            "extends": "rpi4",
            "runtimes": list(runtimes or ("onnxruntime", "openvino")),
            "profile": {"extends": "rpi4", "cost_model": {"onnxruntime": usual, "openvino": fast}},
        }
        if "torch" in runtimes:
            data["requirements"] = {"torch": {"torch": "2.13.0", "numpy": "2.4.6"}}
        path = tmp_path_factory.mktemp("board") / "board.yaml"
        path.write_text(yaml.safe_dump(data))
        target = load_target(str(path))
        return target.with_limits({"peak_memory_mb": memory}, "a test") if memory else target

    return make


def baked(model, example, target, others=()):
    """The bake-off of a network on a target."""
    task = task_of(model, [example])
    shop = open_shop(task, target, Progress(quiet=True), use_cache=False)
    shop = replace(shop, baseline=float_graph(shop, Recipe()))
    graph = shop.baseline.load()
    return bake_off(shop, unchanged(graph), describe(graph, shop.example).layers, others)


def of(outcome):
    return {rival.runtime: rival for rival in outcome.rivals}


IMAGE = noise(1, 1, 16, 16)


@pytest.fixture(scope="module")
def outcome(board):
    return baked(TinyCnn(), IMAGE, board())


def test_the_faster_runtime_is_chosen_although_the_target_names_another_first(outcome):
    assert [rival.runtime for rival in outcome.rivals] == ["onnxruntime", "openvino"], "the target's order"
    chosen = of(outcome)["openvino"]
    assert chosen.chosen
    assert chosen.ratio == 1
    assert chosen.reason == f"fastest with {chosen.threads} threads, predicted"
    assert outcome.shop.runtime == "openvino"
    assert outcome.shop.floats.runtime == "openvino"
    assert outcome.unchanged.recipe == {"steps": [], "runtime": "openvino", "threads": outcome.shop.threads}


def test_the_loser_keeps_its_figures_and_the_reason(outcome):
    lost = of(outcome)["onnxruntime"]
    assert not lost.chosen
    assert 2 < lost.ratio < 4
    assert lost.reason == f"{lost.ratio:.2f} times the time of openvino, predicted"
    assert lost.cost.latency_p90_ms.how == "predicted"
    assert lost.here.peak_memory_mb.how == "measured"
    assert lost.cost.size_mb.value > 0


def test_each_artifact_is_held_against_the_float_graph_which_is_onnxruntime_s_own(outcome):
    assert of(outcome)["openvino"].parity.stage == "onnx -> openvino"
    assert of(outcome)["openvino"].parity.snr_db > 90
    assert of(outcome)["onnxruntime"].parity is None
    assert [parity.stage for parity in outcome.unchanged.parities] == ["torch -> onnx", "onnx -> openvino"]


def test_a_runtime_whose_memory_surely_misses_the_limit_is_not_chosen_though_it_is_faster(board, outcome):
    needs = {name: rival.cost.peak_memory_mb.low for name, rival in of(outcome).items()}
    assert needs["openvino"] > 1.2 * needs["onnxruntime"]
    limit = (needs["openvino"] + needs["onnxruntime"]) / 2
    again = of(baked(TinyCnn(), IMAGE, board(memory=limit)))
    assert again["onnxruntime"].chosen
    assert again["onnxruntime"].reason.startswith("fastest with ")
    assert again["openvino"].reason == "needs more memory than the limit"
    assert again["openvino"].ratio < 1, "its figures are kept"


def test_where_no_memory_suffices_the_fastest_is_chosen_all_the_same(board):
    found = of(baked(TinyCnn(), IMAGE, board(memory=1.0)))
    assert found["openvino"].chosen


def test_among_equally_fast_ones_the_target_s_order_decides(board):
    found = of(baked(TinyCnn(), IMAGE, board(faster=1.05)))
    assert found["onnxruntime"].chosen
    assert found["openvino"].reason == "as fast as onnxruntime (predicted), which the target prefers"


def test_a_runtime_of_which_nothing_is_foretold_loses_to_one_that_is(board):
    found = of(baked(TinyCnn(), IMAGE, board("torch", "onnxruntime", memory=1e5)))
    assert found["onnxruntime"].chosen
    assert found["torch"].reason == (
        "nothing foretells its latency on rpi4: `--runtime torch`, and measure it there"
    )
    assert found["torch"].ratio is None
    assert found["torch"].here.peak_memory_mb.value > 0


@pytest.mark.parametrize(("serial", "threads"), [(1.0, 1), (0.0, 4)], ids=["they do not help", "they help"])
def test_no_more_threads_are_used_than_help(board, serial, threads):
    target = board("onnxruntime", serial_share=serial, memory_gbs=1000, overhead_us=0.001)
    outcome = baked(TinyCnn(), IMAGE, target)
    (rival,) = outcome.rivals
    assert rival.threads == outcome.shop.threads == outcome.unchanged.recipe["threads"] == threads
    used = f"{threads} thread{'s' if threads > 1 else ''}"
    assert rival.reason == f"the only one asked for; {used}"
    assert rival.cost.latency_p50_ms.source.endswith(used), "its figures are of that many threads"


# --- a runtime that cannot convert it ---------------------------------------------------------------------


def determinant():
    """A network with an operator that onnxruntime has and OpenVINO has not."""
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[1,4,4] x) => (float[1] y)'
    model = parser.parse_model(text + "{ a = MatMul(x, w) [volume] y = Det(a) }")
    model.graph.initializer.append(numpy_helper.from_array(noise(4, 4), "w"))
    return model


MATRIX = noise(1, 4, 4)


def test_a_runtime_that_lacks_an_operator_is_passed_over_with_the_operator_named(board):
    found = of(baked(determinant(), MATRIX, board()))
    assert found["onnxruntime"].chosen
    lost = found["openvino"]
    assert lost.reason.startswith("not tried: ")
    assert "Det" in lost.reason
    assert "volume" in lost.reason
    assert (lost.threads, lost.ratio, dict(lost.cost.known())) == (None, None, {})


def test_one_that_was_asked_for_and_cannot_is_refused_with_one_that_can(board):
    with pytest.raises(BadInput) as refusal:
        baked(determinant(), MATRIX, board("openvino"), others=("onnxruntime", "openvino"))
    line = str(refusal.value)
    assert "Det" in line
    assert line.endswith("OpenVINO has no operator Det; `--runtime onnxruntime` can")
    assert len(line.splitlines()) == 1


def test_where_no_other_can_none_is_named(board):
    with pytest.raises(BadInput) as refusal:
        baked(determinant(), MATRIX, board("openvino"), others=("openvino",))
    assert "OpenVINO has no operator Det" in str(refusal.value)
    assert not str(refusal.value).endswith(" can")


# --- the targets that edgekit brings ----------------------------------------------------------------------


@pytest.mark.parametrize("target", ["x86-cpu", "rpi4"])
def test_every_runtime_of_a_shipped_target_takes_a_small_network_and_the_fastest_is_planned_for(target):
    found = plan(Request(source=str(SMALL), target=target, use_cache=False), Progress(quiet=True))
    assert tuple(rival.runtime for rival in found.runtimes) == load_target(target).runtimes
    (chosen,) = [rival for rival in found.runtimes if rival.chosen]
    assert (found.runtime, found.threads) == (chosen.runtime, chosen.threads)
    assert not [rival.reason for rival in found.runtimes if rival.reason.startswith("not tried")]
    assert all(rival.parity.snr_db > 50 for rival in found.runtimes if rival.runtime != "onnxruntime")
    assert all(rival.cost.size_mb.value > 0 for rival in found.runtimes)
    ratios = [rival.ratio for rival in found.runtimes if rival.ratio is not None]
    assert chosen.ratio == 1
    assert min(ratios) * SAME_SPEED >= 1, "none is much faster than the one that was chosen"
    how = "measured in turns" if target == "x86-cpu" else "predicted"
    assert chosen.reason.endswith(how)
    if target == "x86-cpu":
        assert len(ratios) == len(found.runtimes), "this machine is the target: all were measured"
        assert {rival.cost.latency_p50_ms.how for rival in found.runtimes} == {"measured"}


def test_the_artifacts_of_the_losers_are_no_part_of_the_plan(outcome):
    assert outcome.shop.artifacts.keys() == {"float32"}
    assert outcome.shop.artifacts["float32"].path.suffix == ".xml"
    assert isinstance(outcome.shop.interface, onnx.ModelProto)
