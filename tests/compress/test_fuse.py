import copy
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    DsCnn,
    Encoder,
    Grouped,
    Recurrent,
    Tagger,
    TinyCnn,
    UNet,
    Vit,
    calibrated,
    noise,
    task_of,
)
from steps import context_of
from torch import nn

from edgekit.compress.fold import layer_types
from edgekit.compress.fuse import MOST_ERROR, Fuse
from edgekit.errors import BadInput
from edgekit.graph.fusion import optimised
from edgekit.runtimes.float_graph import float_graph
from edgekit.task.call import call_module

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuse")


def fused(network, *example, folder, **options):
    """The network after the step, and the step's report."""
    task = task_of(network, example)
    context = context_of(task, None, folder)
    made = Fuse(**options).apply(task.model, task, context)
    return made, context.reports[0]


def error_between(one, other, *example):
    """The largest difference over the largest value, of the output where that is most."""
    pairs = zip(*(call_module(net, example).values() for net in (one, other)), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)


def norms_of(network):
    return [name for name, module in network.named_modules() if isinstance(module, NORMS)]


class Transposed(nn.Module):
    """A grouped transposed convolution, a norm after an activation, convolutions over one and three axes."""

    def __init__(self):
        super().__init__()
        self.up, self.norm = nn.ConvTranspose2d(4, 6, 3, 2, groups=2, bias=False), nn.BatchNorm2d(6)
        self.late = nn.BatchNorm2d(6)
        self.line, self.line_norm = nn.Conv1d(6, 8, 3, groups=2), nn.BatchNorm1d(8, affine=False)
        self.space, self.space_norm = nn.Conv3d(8, 4, (1, 1, 3), bias=False), nn.BatchNorm3d(4)

    def forward(self, x):
        y = self.late(F.gelu(self.norm(self.up(x))))
        y = F.relu(self.line_norm(self.line(y.flatten(2))))
        return self.space_norm(self.space(y[:, :, None, None]))


NETWORKS = {
    "tiny": (TinyCnn, noise(1, 1, 16, 16), 4, []),
    "dscnn": (DsCnn, noise(1, 1, 49, 10), 2, ["features.2", "features.8", "features.14"]),
    "unet": (UNet, noise(1, 3, 16, 16), 2, []),
    "grouped": (Grouped, noise(1, 3, 16, 16), 1, []),
    "tagger": (Tagger, noise(1, 3, 33, 33), 1, []),
    "transposed": (Transposed, noise(1, 4, 5, 5), 3, ["late"]),
    "lstm": (lambda: Recurrent(nn.LSTM), noise(1, 7, 16), 0, []),
    "encoder": (Encoder, np.arange(5)[None], 0, []),
    "vit": (Vit, noise(1, 1, 16, 16), 0, []),
}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    spread=st.floats(1e-3, 100),
    mean=st.floats(0, 5),
    signs=st.booleans(),
)
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_changes_beyond_rounding_whatever_the_statistics(name, seed, spread, mean, signs, folder):
    make, example, pairs, left = NETWORKS[name]
    torch.manual_seed(seed)
    network = make().eval()
    for norm in network.modules():
        if isinstance(norm, NORMS):
            nn.init.uniform_(norm.running_var, spread / 10, spread)
            nn.init.normal_(norm.running_mean, mean)
            if norm.affine:
                nn.init.uniform_(norm.weight, -2 if signs else 0.1, 2)
                nn.init.normal_(norm.bias)
    before = copy.deepcopy(network)
    made, report = fused(network, example, folder=folder)
    assert error_between(network, made, example) <= MOST_ERROR
    put_back = [note for note in report.notes if "put back" in note]
    assert len(report.changes) + len(put_back) == pairs
    assert len(norms_of(made)) == len(left) + len(put_back)
    assert report.macs[0] == report.macs[1]
    assert report.params[1] == sum(parameter.numel() for parameter in made.parameters())
    assert norms_of(network) == norms_of(before)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), before.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_right_after_a_layer_is_folded(name, folder):
    make, example, pairs, left = NETWORKS[name]
    network = make().eval()
    made, report = fused(network, example, folder=folder)
    assert len(report.changes) == pairs
    assert norms_of(made) == left
    for change in report.changes:
        layer = network.get_submodule(change.layer)
        assert isinstance(layer, layer_types())
        assert change.params[1] == sum(p.numel() for p in made.get_submodule(change.layer).parameters())
        assert change.macs[0] == change.macs[1] > 0
    if left:
        assert any(note.startswith(", ".join(left)) and "left alone" in note for note in report.notes)


def test_what_the_onnx_runtime_makes_of_activations_is_what_the_step_leaves_to_it(folder):
    cnn, report = fused(calibrated(TinyCnn(), 1, 16, 16), noise(1, 1, 16, 16), folder=folder)
    assert report.notes[-1] == "right after a layer: 3 ReLU; left to the runtime"
    vit, said = fused(Vit(), noise(1, 1, 16, 16), folder=folder)
    assert said.notes == ("right after a layer: 2 GELU; left to the runtime",)
    for network, expected in ((cnn, {"Relu": 0, "BatchNormalization": 0}), (vit, {"Gelu": 2, "Erf": 0})):
        task = task_of(network, [noise(1, 1, 16, 16)])
        graph, _ = float_graph(network, task, opset=20, ir_version=10)
        found = Counter(node.op_type for node in optimised(graph).node)
        assert {kind: found[kind] for kind in expected} == expected


class Reads(nn.Module):
    """Convolutions whose outputs are read aside, that are used twice, share weights, or are looked into."""

    def __init__(self):
        super().__init__()
        for name in ("aside", "aside_seen", "twice", "one", "other", "looked", "first"):
            setattr(self, name, nn.Conv2d(4, 4, 1))
            setattr(self, f"{name}_norm", nn.BatchNorm2d(4))
        self.other.weight = self.one.weight
        self.bare, self.bare_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x):
        y = self.first(self.first_norm(x))
        z = self.aside(y)
        y = self.aside_norm(z) + z
        z = self.aside_seen(y)
        with torch.no_grad():  # read where autograd sees nothing
            gate = (z > 0).float()
        y = self.aside_seen_norm(z) * gate
        y = self.twice_norm(self.twice(y)) + self.twice(y + 1)
        y = self.one_norm(self.one(y)) + self.other_norm(self.other(y))
        y = self.looked_norm(self.looked(y)) + self.looked_norm.running_mean[:, None, None]
        return self.bare_norm(self.bare(y))


def test_a_norm_whose_layer_serves_others_too_is_left_alone_and_said(folder):
    made, report = fused(calibrated(Reads(), 4, 6, 6), noise(1, 4, 6, 6), folder=folder)
    assert report.changes == ()
    assert report.params[0] == report.params[1]
    said = "; ".join(report.notes)
    assert "first_norm: left alone, what they read is not just what a layer wrote" in said
    assert "aside_norm: left alone, its layer's output is read by others too" in said
    assert "twice_norm: left alone, it or its layer is used more than once" in said
    assert "one_norm, other_norm: left alone, its layer's weights are computed or shared" in said
    assert "bare_norm: left alone, has no statistics of its own" in said
    assert "aside_seen with aside_seen_norm would change the outputs by more than 1e-05: put back" in said
    assert "looked with looked_norm would change the outputs by more than 1e-05: put back" in said
    assert len(norms_of(made)) == 8


class Scale(nn.Module):
    """A layer scale, as vision transformers have it."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return x * self.gamma


class Frozen(nn.Module):
    """A frozen norm, as detectors have it."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("scale", torch.rand(width) + 0.5)
        self.register_buffer("shift", torch.randn(width))

    def forward(self, x):
        return x * self.scale[:, None, None] + self.shift[:, None, None]


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.frozen = nn.Conv2d(3, 8, 3), Frozen(8)
        self.dense, self.scale, self.soft = nn.Linear(8, 8), Scale(8), nn.Softplus()

    def forward(self, x):
        y = F.relu(self.frozen(self.conv(x))).flatten(2).transpose(1, 2)
        return self.soft(self.scale(self.dense(y))).mean(1)


def test_named_pairs_of_ones_own_modules_are_folded(folder):
    torch.manual_seed(0)
    network, example = Custom(), noise(1, 3, 9, 9)
    pairs = (("conv", "frozen"), ("dense", "scale"))
    assert fused(network, example, folder=folder)[1].changes == ()
    made, report = fused(network, example, folder=folder, pairs=pairs)
    assert [(change.layer, change.what) for change in report.changes] == [
        ("conv", "with frozen"),
        ("dense", "with scale"),
    ]
    assert error_between(network, made, example) <= MOST_ERROR
    assert isinstance(made.frozen, nn.Identity)
    assert report.params == (report.params[0], report.params[0] - 8)


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("conv", "frosen"), r"^fuse pairs: no module `frosen`; did you mean `frozen`"),
        (("scale", "soft"), r"the first is no convolution or linear layer$"),
        (("conv", "scale"), r"the second is not given the first's output$"),
    ],
)
def test_a_pair_that_cannot_be_folded_is_refused(pair, reason, folder):
    with pytest.raises(BadInput, match=reason):
        fused(Custom(), noise(1, 3, 9, 9), folder=folder, pairs=(pair,))


def test_a_module_that_does_more_than_scale_and_shift_is_refused(folder):
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(
        BadInput, match=r"^fuse pairs: 0 with 1 cannot be folded: the second does more than sc"
    ):
        fused(network, noise(1, 4), folder=folder, pairs=(("0", "1"),))


def test_a_frozen_network_and_an_onnx_file_are_refused(tiny_graph, folder):
    script = torch.jit.trace(TinyCnn().eval(), torch.zeros(1, 1, 16, 16))
    for model in (script, tiny_graph):
        task = task_of(model, [noise(1, 1, 16, 16)])
        with pytest.raises(BadInput, match=r"^fuse net: only a torch network .* leave `fuse` out$"):
            Fuse().apply(model, task, context_of(task, None, folder))


def test_a_trained_network_answers_the_same(tiny_cnn, folder):
    made, report = fused(tiny_cnn.model, *tiny_cnn.example, folder=folder)
    images = np.concatenate([call[0] for call in tiny_cnn.calibration])
    assert error_between(tiny_cnn.model, made, images) <= MOST_ERROR
    assert report.params[1] < report.params[0]
    assert made.head.weight.requires_grad
    assert made.stem[0].weight.requires_grad
