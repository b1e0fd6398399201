import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
)
from pydantic import ValidationError
from steps import context_of
from torch import nn

from edgekit.compress.distill import Distill
from edgekit.compress.prune import Prune
from edgekit.compress.pruning.narrow import narrow_by, narrowable
from edgekit.compress.pruning.regularise import Pressure, regularised
from edgekit.compress.pruning.widths import macs_by_layer
from edgekit.errors import BadInput
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import check_export


def count_macs(network, inputs):
    return sum(macs_by_layer(network, inputs).values())


IMAGE = noise(1, 3, 32, 32)
TREATED = {
    "residual": (TinyCnn(), noise(1, 1, 16, 16)),
    "depthwise": (calibrated(DsCnn(), 1, 49, 10), noise(1, 1, 49, 10)),
    "segmentation": (calibrated(UNet(), 3, 32, 32), IMAGE),
    "landmarks": (ONet(), noise(1, 3, 24, 24)),
    "labels": (calibrated(Tagger(), 3, 32, 32), IMAGE),
    "grouped and shared": (calibrated(Grouped(), 3, 16, 16), noise(1, 3, 16, 16)),
}


@pytest.fixture
def pruned(tmp_path):
    """Prune a network around this example call; the task and what came out."""

    def prune(network, example, macs=0.6):
        task = task_of(network, [example])
        context = context_of(task, None, tmp_path)
        return task, Prune(macs=macs, round_to=8).apply(network, task, context)

    return prune


@pytest.mark.parametrize("kind", TREATED)
def test_networks_become_smaller_run_and_export(kind, pruned):
    network, example = TREATED[kind]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    task, narrow = pruned(network, example)
    inputs = (torch.from_numpy(example),)
    assert count_macs(narrow, inputs) <= 0.6 * count_macs(network, inputs)
    assert all(
        layer.out_channels % 8 == 0
        for layer in narrow.modules()
        if type(layer) is nn.Conv2d and layer.out_channels > 8
    )
    model = float_graph(narrow, task, opset=20, ir_version=10)[0]
    assert check_export(narrow, model, calls_of(task, 4)).snr_db > 80
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_less_work_asked_is_less_work_got(pruned):
    network, example = TREATED["residual"]
    work = [
        count_macs(pruned(network, example, macs)[1], (torch.from_numpy(example),))
        for macs in (0.8, 0.5, 0.3)
    ]
    assert work == sorted(work, reverse=True)
    assert len(set(work)) > 1


def test_attention_is_left_alone_and_its_mlp_is_narrowed():
    assert set(narrowable(Vit(), (torch.zeros(1, 1, 16, 16),))) == {"mlps.0.0", "mlps.1.0"}
    layers = narrowable(Encoder().eval(), (torch.zeros(1, 12, dtype=torch.int64),))
    assert set(layers) == {"layers.layers.0.linear1", "layers.layers.1.linear1"}


def test_a_block_that_holds_attention_and_a_perceptron_loses_hidden_channels_of_the_perceptron():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads, self.norm = 4, nn.LayerNorm(32)
            self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
            self.widen, self.back = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x):
            n, length, _ = x.shape
            q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            x = x + self.out(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(x.shape))
            return x + self.back(self.widen(self.norm(x)).relu())

    network = nn.Sequential(Block(), Block(), nn.Linear(32, 4))
    inputs = (torch.from_numpy(noise(1, 6, 32)),)
    assert set(narrowable(network, inputs)) == {"0.widen", "1.widen"}
    narrow = narrow_by(network, inputs, {"0.widen": 16, "1.widen": 8})
    assert (narrow[0].back.in_features, narrow[1].back.in_features) == (16, 8)


def test_layers_that_feed_a_recurrent_one_are_left_alone():
    class Listener(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(4, 16, 3), nn.Conv1d(16, 16, 3)
            self.rnn = nn.GRU(16, 8, batch_first=True)

        def forward(self, x):
            return self.rnn(self.second(self.first(x).relu()).transpose(1, 2))[0]

    assert set(narrowable(Listener(), (torch.zeros(1, 4, 32),))) == {"first"}


def test_a_width_that_the_forward_function_relies_on_is_left_alone():
    class Flattened(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3)
            self.head = nn.Linear(16 * 16, 4)

        def forward(self, x):
            return self.head(self.second(self.first(x).relu()).reshape(-1, 256))

    assert "first" in narrowable(Flattened(), (torch.zeros(1, 1, 8, 8),))
    assert "second" not in narrowable(Flattened(), (torch.zeros(1, 1, 8, 8),))


@pytest.mark.parametrize(
    ("network", "example"),
    [
        (nn.Linear(16, 4), noise(1, 16)),
        (Attention(32, 4), noise(1, 6, 32)),
        (nn.MultiheadAttention(16, 2), None),
        (Recurrent(nn.LSTM), noise(1, 20, 16)),
        (nn.ReLU(), noise(1, 4)),
    ],
    ids=["one layer", "attention", "torch's attention", "recurrent", "no layer"],
)
def test_networks_with_nothing_to_narrow_are_refused_in_one_line(network, example, pruned, tmp_path):
    if example is None:
        task = task_of(network, [noise(3, 1, 16)] * 3)
        with pytest.raises(BadInput, match=r"^prune: no layer can be narrowed"):
            Prune().apply(network.eval(), task, context_of(task, None, tmp_path))
        return
    with pytest.raises(BadInput, match=r"^prune: no layer can be narrowed"):
        pruned(network, example)


def test_a_state_is_kept_as_wide_as_its_cell(tmp_path):
    task = task_of(Stateful(), [noise(1, 512), noise(2, 1, 16)], names=["x", "state"])
    with pytest.raises(BadInput, match=r"^prune: no layer can be narrowed"):
        Prune().apply(task.model, task, context_of(task, None, tmp_path))


def test_what_cannot_be_reached_is_refused_with_the_least_that_can(pruned):
    network, example = TREATED["residual"]
    with pytest.raises(
        BadInput, match=r"^prune: at least \d+% of the work stays with channels in multiples of 8"
    ):
        pruned(network, example, 0.01)


def test_an_exported_network_is_refused(pruned):
    frozen = torch.jit.trace(TinyCnn().eval(), torch.zeros(1, 1, 16, 16))
    with pytest.raises(BadInput, match=r"an exported network cannot be pruned, its forward is frozen"):
        pruned(frozen, noise(1, 1, 16, 16))


def test_the_channels_of_least_weight_go():
    network = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    with torch.no_grad():
        network[0].weight[:, 0, 0, 0] = torch.tensor([1.0, 0.01, 2.0, 0.02])
        network[2].weight[:] = 1
    narrow = narrow_by(network, (torch.ones(1, 1, 2, 2),), {"0": 2})
    assert narrow[0].weight.flatten().tolist() == [1.0, 2.0]


def test_distillation_brings_back_what_pruning_cost(tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    narrow = Prune(macs=0.5, round_to=8).apply(tiny_cnn.model, tiny_cnn, context)
    taught = Distill(epochs=3).apply(narrow, tiny_cnn, context)
    graphs = [
        float_graph(net, tiny_cnn, opset=20, ir_version=10)[0] for net in (tiny_cnn.model, narrow, taught)
    ]
    whole, before, after = map(accuracy, graphs)
    assert before < whole - 0.1
    assert after > whole - 0.05


def test_channels_that_torch_pruning_loses_track_of_are_refused_in_one_line(pruned):
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 32, 3), nn.Linear(32, 4)

        def forward(self, x):
            left, right = self.first(x).chunk(2, 1)
            return self.second(torch.cat([left * right, left], 1).mean((2, 3)))

    with pytest.raises(BadInput, match=r"^prune net: torch-pruning cannot follow its channels \("):
        pruned(Split(), IMAGE)


def test_outputs_in_a_dict_keep_their_shapes(pruned):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.box, self.face = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 4, 1), nn.Conv2d(32, 2, 1)

        def forward(self, x):
            y = self.first(x).relu()
            return {"box": self.box(y), "face": [self.face(y)]}

    _, narrow = pruned(Named(), IMAGE)
    assert narrow.first.out_channels < 32
    assert (narrow.box.out_channels, narrow.face.out_channels) == (4, 2)


@given(st.floats(0.15, 1), st.sampled_from(["uniform", "global"]), st.sampled_from([1, 4, 8]))
@settings(max_examples=12, deadline=None)
def test_asking_for_a_share_of_the_work_gives_it(tmp_path_factory, share, scope, step):
    network, example = TREATED["residual"]
    task = task_of(network, [example])
    context = context_of(task, None, tmp_path_factory.mktemp("prune"))
    narrow = Prune(macs=share, scope=scope, round_to=step).apply(network, task, context)
    before, after = (count_macs(net, (torch.from_numpy(example),)) for net in (network, narrow))
    assert context.reports[-1].macs == (before, after)
    assert after <= share * before
    widest_step = max(step * macs for macs in _macs_by_channel(narrow, torch.from_numpy(example)))
    assert after + widest_step > share * before or after == before


def _macs_by_channel(network, example):
    """The work that one more channel of each of TinyCnn's three groups brings."""
    macs = macs_by_layer(network, (example,))
    for writers, readers in (
        (["stem.0"], ["down.0"]),
        (["down.0", "block.3"], ["block.0", "head"]),
        (["block.0"], ["block.3"]),
    ):
        width = network.get_submodule(writers[0]).out_channels
        yield sum(macs[name] for name in writers + readers) / width


def test_all_of_the_work_is_the_same_network(pruned):
    network, example = TREATED["residual"]
    _, same = pruned(network, example, 1)
    assert same is not network
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), same.parameters(), strict=True))
    _, other = network, Prune(ratio=0)
    assert other.macs == 1


def test_a_ratio_is_the_other_side_of_macs():
    assert Prune(ratio=0.3) == Prune(macs=0.7)
    assert Prune().macs == 0.5
    assert Prune.model_validate({"step": "prune", "macs": 0.5, "round_to": 8}) == Prune(macs=0.5, round_to=8)
    assert Prune(ratio=0.3).model_dump(exclude_defaults=True) == {"macs": 0.7}
    with pytest.raises(ValidationError, match=r"`macs` and `ratio` say the same: give one of both"):
        Prune(ratio=0.3, macs=0.7)
    for wrong in (1, -0.1, 2):
        with pytest.raises(ValidationError, match="ratio"):
            Prune(ratio=wrong)


def test_the_report_names_the_channels_that_stay_and_what_was_left_alone(tmp_path):
    network, example = TREATED["residual"]
    task = task_of(network, [example])
    context = context_of(task, None, tmp_path)
    narrow = Prune(macs=0.4, round_to=8).apply(network, task, context)
    (report,) = context.reports
    assert report.step == "prune"
    assert report.params == tuple(sum(p.numel() for p in net.parameters()) for net in (network, narrow))
    changes = {change.layer: change for change in report.changes}
    assert changes["block.0"].what == f"{narrow.block[0].out_channels} of 32 channels"
    assert changes["head"].what == f"all 10 channels, {narrow.head.in_features} of 32 inputs"
    assert all(change.macs[1] < change.macs[0] for change in report.changes)
    assert report.notes[0].startswith("head keep all channels: outputs")


def test_rounds_with_training_between_end_at_the_share_and_rank_anew(tiny_cnn, tmp_path):
    found = {}
    for schedule in ("one-shot", "linear", "polynomial", "exponential"):
        context = context_of(tiny_cnn, None, tmp_path)
        step = Prune(macs=0.4, round_to=4, schedule=schedule, rounds=2)
        found[schedule] = step.apply(tiny_cnn.model, tiny_cnn, context)
        (report,) = context.reports
        assert 0.3 < report.macs[1] / report.macs[0] <= 0.4
        assert report.seconds > 0
        assert not context.taught
    kept = {name: net.stem[0].weight.flatten()[:8].tolist() for name, net in found.items()}
    assert kept["linear"] != kept["one-shot"]  # it was trained between


def test_rounds_without_training_data_are_refused(pruned, tmp_path):
    network, example = TREATED["residual"]
    task = task_of(network, [example])
    with pytest.raises(BadInput, match=r"needs training data and a torch network; add"):
        Prune(schedule="linear", round_to=4).apply(network, task, context_of(task, None, tmp_path))


def _unlike(network, layers):
    """How unlike the channels of each layer are: the least norm over the mean."""
    norms = [network.get_submodule(name).weight.detach().flatten(1).norm(dim=1) for name in layers]
    return float(np.mean([float(norm.min() / norm.mean()) for norm in norms]))


def test_a_group_norm_makes_the_least_channels_smaller_before_they_go(tiny_cnn, tmp_path):
    context, layers = context_of(tiny_cnn, None, tmp_path), {"stem.0": 16, "down.0": 32, "block.0": 32}
    layers["block.3"] = 32
    light, heavy = (
        regularised(
            tiny_cnn.model, layers, tiny_cnn, context, Pressure(norm="group-norm", epochs=2, weight=weight)
        )
        for weight in (1e-8, 0.02)
    )
    assert _unlike(heavy, layers) < 0.8 * _unlike(light, layers)


def test_a_nuclear_norm_lowers_the_rank(tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)

    def rank(weight):
        pressure = Pressure(norm="nuclear-norm", epochs=2, weight=weight)
        network = regularised(tiny_cnn.model, {}, tiny_cnn, context, pressure)
        values = torch.linalg.svdvals(network.block[0].weight.detach().flatten(1))
        return float(values.sum() ** 2 / values.square().sum())  # counts the values that matter

    assert rank(0.3) < 0.8 * rank(1e-8)


def test_regularising_is_part_of_the_step(tiny_cnn, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    plain = Prune(macs=0.5, round_to=8).apply(tiny_cnn.model, tiny_cnn, context)
    pressed = Prune(macs=0.5, round_to=8, regularise_epochs=1).apply(tiny_cnn.model, tiny_cnn, context)
    assert not torch.equal(plain.head.weight, pressed.head.weight)
