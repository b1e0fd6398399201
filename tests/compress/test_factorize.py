import copy

import pytest
import torch
from networks import (
    Attention,
    DsCnn,
    Encoder,
    Grouped,
    ONet,
    Recurrent,
    Stateful,
    Tagger,
    TinyCnn,
    UNet,
    Vit,
    accuracy,
    calibrated,
    calls_of,
    noise,
    task_of,
    trained_task,
)
from steps import context_of
from torch import nn

from edgekit.compress.factorize import Factorize
from edgekit.compress.totals import params_of, total_work
from edgekit.errors import BadInput
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import check_export

IMAGE = noise(1, 3, 32, 32)
FAMILIES = {
    "residual": (TinyCnn(), (noise(1, 1, 16, 16),)),
    "depthwise": (calibrated(DsCnn(), 1, 49, 10), (noise(1, 1, 49, 10),)),
    "segmentation": (calibrated(UNet(), 3, 32, 32), (IMAGE,)),
    "landmarks": (ONet(), (noise(1, 3, 24, 24),)),
    "labels": (calibrated(Tagger(), 3, 32, 32), (IMAGE,)),
    "grouped and shared": (calibrated(Grouped(), 3, 16, 16), (noise(1, 3, 16, 16),)),
    "attention": (nn.Sequential(Attention(32, 4), nn.Linear(32, 32)), (noise(1, 9, 32),)),
    "transformer": (Vit(), (noise(1, 1, 16, 16),)),
    "text": (Encoder(), (torch.randint(0, 100, (1, 12)).numpy(),)),
    "recurrent": (Recurrent(nn.GRU), (noise(1, 20, 16),)),
    "stateful": (Stateful(), (noise(1, 256), noise(2, 1, 16))),
}
HALF = Factorize(method="svd", rank="ratio", amount=0.25, skip_small=4, min_rank=2, round_to=1)


@pytest.fixture(scope="module")
def wide():
    """A wide residual network that knows digits: its layers are worth factorizing."""
    torch.manual_seed(0)
    return trained_task(TinyCnn(32), epochs=3)


def heavy_names(network):
    return {name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_factorized_where_it_can_be_and_exports_and_its_input_stays(family, tmp_path):
    network, example = FAMILIES[family]
    before = copy.deepcopy(network.state_dict())
    task = task_of(network.eval(), example)
    context = context_of(task, None, tmp_path)
    found = HALF.apply(task.model, task, context)
    report = context.reports[0]
    assert report.params == (params_of(network), params_of(found))
    assert report.macs == (total_work(network, context.example), total_work(found, context.example))
    assert report.params[0] - report.params[1] == sum(c.params[0] - c.params[1] for c in report.changes)
    assert all(c.macs[1] < c.macs[0] for c in report.changes)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    graph = float_graph(found, task, opset=20, ir_version=10)[0]
    assert check_export(found, graph, calls_of(task)).snr_db > 50


def test_the_first_and_the_last_layer_and_narrow_ones_are_left_alone(wide, tmp_path):
    context = context_of(wide, None, tmp_path)
    Factorize(method="svd", rank="ratio", amount=0.25, round_to=1, min_rank=1).apply(
        wide.model, wide, context
    )
    changed = {change.layer for change in context.reports[0].changes}
    assert changed <= {"down.0", "block.0", "block.3"}
    assert {"block.0", "block.3"} <= changed
    context = context_of(wide, None, tmp_path)
    Factorize(method="svd", rank="ratio", amount=0.25, skip_small=65).apply(wide.model, wide, context)
    assert context.reports[0].changes == ()


def test_a_layer_that_shares_its_weight_is_left_alone(tmp_path):
    network = nn.Sequential(*(nn.Linear(32, 32) for _ in range(4))).eval()
    network[2].weight = network[1].weight
    task, context = task_of(network, (noise(1, 32),)), None
    context = context_of(task, None, tmp_path)
    Factorize(method="svd", rank="ratio", amount=0.25, preserve_first_last=False, round_to=1).apply(
        network, task, context
    )
    assert {change.layer for change in context.reports[0].changes} == {"0", "3"}


def test_a_layer_that_would_not_gain_stays_and_the_report_says_so(wide, tmp_path):
    context = context_of(wide, None, tmp_path)
    found = Factorize(method="svd", rank="ratio", amount=1.0).apply(wide.model, wide, context)
    assert heavy_names(found) == heavy_names(wide.model)
    assert context.reports[0].notes[0].endswith("would not gain in predicted time and are as they were")


def test_what_the_board_foretells_decides_which_layers_are_taken_apart(wide, tmp_path):
    def one_is_slow(layers):
        return sum(1.0 if layer.output_elements == 16 * 64 * 64 else 10.0 for layer in layers)

    def all_cost_alike(layers):
        return float(len(layers))

    for layer_ms in (one_is_slow, all_cost_alike):
        context = context_of(wide, None, tmp_path, layer_ms=layer_ms)
        HALF.apply(wide.model, wide, context)
        assert context.reports[0].changes == (), "two layers are slower than one there"
    context = context_of(
        wide, None, tmp_path, layer_ms=lambda layers: sum(layer.macs for layer in layers) / 1e6
    )
    HALF.apply(wide.model, wide, context)
    assert context.reports[0].changes


@pytest.mark.parametrize(
    "step",
    [
        Factorize(amount=0.95),
        Factorize(method="tucker", rank="energy", amount=0.8),
        Factorize(method="hlrtf", amount=0.8, levels=(0.5, 0.5, 0.1)),
        Factorize(method="svd", rank="nuclear", amount=0.8),
        Factorize(method="svd", rank="vbmf"),
        Factorize(method="tucker", rank="cost", amount=0.97),
        Factorize(method="svd", gain="size", amount=0.95),
    ],
    ids=lambda step: f"{step.method} {step.rank} {step.gain}",
)
def test_a_trained_network_still_knows_its_digits_after_it(wide, tmp_path, step):
    before = accuracy(float_graph(wide.model, wide, opset=20, ir_version=10)[0])
    context = context_of(wide, None, tmp_path)
    found = step.apply(wide.model, wide, context)
    report = context.reports[0]
    assert report.params[1] <= report.params[0]
    assert report.macs[1] <= report.macs[0]
    after = accuracy(float_graph(found, wide, opset=20, ir_version=10)[0])
    assert before > 0.9
    assert after > before - 0.25, report


def test_more_error_may_be_spent_for_more_savings(wide, tmp_path):
    work = []
    for amount in (0.99, 0.9, 0.6):
        context = context_of(wide, None, tmp_path)
        Factorize(method="svd", rank="cost", amount=amount, round_to=1).apply(wide.model, wide, context)
        report = context.reports[0]
        work.append(report.macs[1])
        assert sum(c.error**2 for c in report.changes) <= (1 - amount) * 3 + 1e-9
    assert work == sorted(work, reverse=True)
    assert work[0] > work[2]


def test_the_data_help_and_without_any_the_report_says_what_errors_mean(wide, tmp_path):
    errors = {}
    for whiten in (True, False):
        context = context_of(wide, None, tmp_path)
        step = Factorize(method="svd", rank="ratio", amount=0.25, round_to=1, whiten=whiten)
        step.apply(wide.model, wide, context)
        errors[whiten] = sum(change.error for change in context.reports[0].changes)
    assert errors[True] < 0.9 * errors[False]
    context = context_of(wide, None, tmp_path, calls=())
    HALF.apply(wide.model, wide, context)
    assert "no calibration data: errors are those of the weights" in context.reports[0].notes


def test_a_frozen_forward_is_refused(wide, tmp_path):
    frozen = torch.jit.trace(wide.model, torch.from_numpy(wide.example[0]))
    with pytest.raises(BadInput, match="its forward is frozen; give the task file"):
        Factorize().apply(frozen, wide, context_of(wide, None, tmp_path))
