from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import DsCnn, Recurrent, TinyCnn, Vit, accuracy, calibrated, calls_of, noise, task_of
from pydantic import ValidationError
from steps import context_of
from torch import nn

from edgekit.compress.pruning.masks import Pattern, growing, masks_for, weights_of
from edgekit.compress.sparsify import Sparsify
from edgekit.errors import BadInput
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import check_export


def share_of_zeros(network, names=None):
    weights = [weight for name, weight in weights_of(network).items() if names is None or name in names]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def correct(network, task):
    return accuracy(float_graph(network, task, opset=20, ir_version=10)[0])


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3),
    st.floats(0.05, 0.95),
    st.sampled_from(["global", "layer"]),
    st.sampled_from([(1, 1), (4, 1), (2, 2)]),
)
@settings(max_examples=60, deadline=None)
def test_the_smallest_go_whole_blocks_at_a_time_and_as_many_as_were_asked(shapes, sparsity, scope, block):
    torch.manual_seed(0)
    weights = {str(i): torch.randn(4 * o, 4 * c, k, k) for i, (o, c, k) in enumerate(shapes)}
    masks = masks_for(weights, Pattern(kind="block", scope=scope, block=block), sparsity)
    units, scores = {}, {}
    for name, mask in masks.items():
        out, inner, *window = mask.shape
        parts = mask.reshape(out // block[0], block[0], inner // block[1], block[1], *window)
        units[name] = parts.amax((1, 3))
        assert torch.equal(units[name], parts.amin((1, 3)))  # a block goes whole or not at all
        scores[name] = weights[name].abs().reshape(parts.shape).mean((1, 3))
    pools = [list(masks)] if scope == "global" else [[name] for name in masks]
    for pool in pools:
        kept = torch.cat([units[name].flatten() for name in pool])
        score = torch.cat([scores[name].flatten() for name in pool])
        assert int((kept == 0).sum()) == round(sparsity * len(kept))
        if 0 < kept.sum() < len(kept):
            assert score[kept == 0].max() <= score[kept == 1].min()


@given(st.integers(1, 7), st.integers(2, 8), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_n_of_every_m_neighbours_stay_and_they_are_the_largest(n, m, groups, window):
    if n >= m:
        return
    torch.manual_seed(0)
    weight = torch.randn(3, groups * m, window, window)
    mask = masks_for({"w": weight}, Pattern(kind="n:m", n=n, m=m), 0.5)["w"]
    for index in range(groups):
        part, sizes = (tensor[:, index * m : (index + 1) * m] for tensor in (mask, weight.abs()))
        assert bool((part.sum(1) == n).all())
        least = torch.where(part == 1, sizes, torch.inf).amin(1)
        assert bool((torch.where(part == 0, sizes, 0).amax(1) <= least).all())


@pytest.mark.parametrize(
    ("options", "zeros"),
    [
        ({"sparsity": 0.7}, 0.7),
        ({"sparsity": 0.7, "scope": "layer"}, 0.7),
        ({"pattern": "n:m"}, 0.5),
        ({"pattern": "n:m", "n": 1}, 0.75),
        ({"pattern": "block", "sparsity": 0.6}, 0.6),
    ],
    ids=["unstructured", "each layer", "2:4", "1:4", "blocks"],
)
@pytest.mark.parametrize("network", [TinyCnn(), Vit()], ids=["convolutions", "transformer"])
def test_the_network_exports_with_the_zeros_that_were_asked(options, zeros, network, tmp_path):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    task = task_of(network, [noise(1, 1, 16, 16)])
    context = context_of(task, None, tmp_path)
    sparse = Sparsify(**options).apply(network, task, context)
    pattern = Pattern(kind=options.get("pattern", "unstructured"))
    fitting = {name for name, weight in weights_of(network).items() if pattern.fits(weight)}
    assert share_of_zeros(sparse, fitting) == pytest.approx(zeros, abs=0.001)
    assert {name for name, w in weights_of(sparse).items() if (w == 0).any()} <= fitting
    assert len(fitting) >= 3
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any("mask" in name or "orig" in name for name in sparse.state_dict())
    model = float_graph(sparse, task, opset=20, ir_version=10)[0]
    assert check_export(sparse, model, calls_of(task, 4)).snr_db > 80


def test_the_report_says_how_many_are_zero_and_which_runtime_gains(tmp_path):
    network = TinyCnn().eval()
    task = task_of(network, [noise(1, 1, 16, 16)])
    context = context_of(task, None, tmp_path)
    sparse = Sparsify(pattern="n:m").apply(network, task, context)
    (report,) = context.reports
    assert report.params[0] == report.params[1]
    assert report.macs[0] == report.macs[1]
    changes = {change.layer: change.what for change in report.changes}
    assert changes["block.0"] == "4608 of 9216 weights are zero"
    assert int((sparse.block[0].weight == 0).sum()) == 4608
    assert "TensorRT" in report.notes[0]
    assert report.notes[1] == "stem.0 do not divide into the pattern and are as they were"
    assert torch.equal(sparse.stem[0].weight, network.stem[0].weight)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 2},
        {"epochs": 2, "pattern": "n:m"},
        {"epochs": 2, "schedule": "gradual"},
        {"epochs": 2, "schedule": "gradual", "pattern": "block", "scope": "layer"},
    ],
    ids=["one-shot", "2:4", "gradual", "gradual blocks"],
)
def test_training_brings_back_what_zeros_cost_and_leaves_them_zero(options, tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    plain = {name: value for name, value in options.items() if name not in ("epochs", "schedule")}
    sparsity = {"n:m": 0.75, "block": 0.6}.get(options.get("pattern"), 0.85)
    given = {"sparsity": sparsity, "n": 1}
    at_once = Sparsify(**plain, **given).apply(tiny_cnn.model, tiny_cnn, context)
    trained = Sparsify(**options, **given).apply(tiny_cnn.model, tiny_cnn, context)
    assert share_of_zeros(trained) == pytest.approx(sparsity, abs=0.02)
    whole, before, after = (correct(net, tiny_cnn) for net in (tiny_cnn.model, at_once, trained))
    assert before < whole - 0.05
    assert after > whole - 0.05
    assert not trained.training


def test_the_same_seed_gives_the_same_zeros(tiny_cnn, tmp_path):
    context, step = context_of(tiny_cnn, None, tmp_path), Sparsify(schedule="gradual", epochs=1)
    once, twice = (step.apply(tiny_cnn.model, tiny_cnn, context) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))


def test_the_share_of_zeros_grows_fast_at_first_and_is_there_before_the_end():
    assert growing(0.8, 0) == 0
    assert growing(0.8, 0.75) == growing(0.8, 1) == 0.8
    steps = [growing(0.8, (i + 1) / 8) - growing(0.8, i / 8) for i in range(6)]
    assert steps == sorted(steps, reverse=True)


def test_a_lottery_ticket_starts_again_from_early_weights_and_learns(tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    step = Sparsify(schedule="lottery-ticket", epochs=5, rewind_epoch=1, sparsity=0.6)
    torch.manual_seed(5)
    given_network = TinyCnn().eval()
    once = step.apply(given_network, tiny_cnn, context)
    assert share_of_zeros(once) == pytest.approx(0.6, abs=0.01)
    assert correct(once, tiny_cnn) > 0.6  # from nothing, in four epochs
    kept = once.block[0].weight != 0
    pair = torch.stack([net.block[0].weight[kept] for net in (once, given_network)])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.2  # it did not begin with the weights that it was given


def test_depthwise_layers_have_no_neighbours_to_choose_from(tmp_path):
    task = task_of(calibrated(DsCnn(), 1, 49, 10), [noise(1, 1, 49, 10)])
    context = context_of(task, None, tmp_path)
    sparse = Sparsify(pattern="n:m").apply(task.model, task, context)
    assert "features.3" in context.reports[0].notes[1]
    assert torch.equal(sparse.features[3].weight, task.model.features[3].weight)
    assert int((sparse.features[6].weight == 0).sum()) == sparse.features[6].weight.numel() // 2


def test_a_network_that_no_layer_of_fits_is_refused(tmp_path):
    task = task_of(Recurrent(nn.GRU), [noise(1, 20, 16)])
    with pytest.raises(BadInput, match=r"^sparsify net: no layer fits the pattern block$"):
        Sparsify(pattern="block", block=(3, 1)).apply(task.model, task, context_of(task, None, tmp_path))


def test_without_training_data_a_schedule_is_refused(tiny_cnn, tmp_path):
    bare = replace(tiny_cnn, training=None)
    with pytest.raises(BadInput, match=r"sparsify needs training data and a torch network"):
        Sparsify(schedule="gradual", epochs=1).apply(bare.model, bare, context_of(bare, None, tmp_path))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"n": 4, "m": 4}, "n is smaller than m"),
        ({"schedule": "gradual"}, "the schedule gradual needs `epochs`"),
        ({"schedule": "lottery-ticket", "epochs": 1}, "`rewind_epoch` comes before the last"),
        ({"schedule": "gradual", "epochs": 2, "pattern": "n:m"}, "cannot be gradual"),
        ({"block": (0, 1)}, "a block has at least one output"),
    ],
)
def test_options_that_contradict_one_another_are_refused(given, reason):
    with pytest.raises(ValidationError, match=reason):
        Sparsify(**given)
