from dataclasses import replace

import pytest
import torch
from networks import (
    Encoder,
    Recurrent,
    TinyCnn,
    UNet,
    Vit,
    accuracy,
    calls_of,
    noise,
    task_of,
    train,
    trained_task,
)
from pydantic import ValidationError
from steps import context_of
from torch import nn

from edgekit.compress.depth import Depth
from edgekit.compress.distill import Distill
from edgekit.compress.pruning.blocks import removable, without
from edgekit.errors import BadInput
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import check_export


class Residual(nn.Module):
    def __init__(self, inner, outer, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.short = nn.Sequential()
        if stride > 1:
            self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.short(x)).relu()


class Stages(nn.Module):
    """Two stages of three residual blocks each, each in a list of its own."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.low = nn.Sequential(*(Residual(width, width) for _ in range(3)))
        wide = 2 * width
        self.high = nn.Sequential(Residual(width, wide, 2), Residual(wide, wide), Residual(wide, wide))
        self.head = nn.Linear(wide, 10)

    def forward(self, x):
        return self.head(self.high(self.low(self.stem(x))).mean((2, 3)))


class Squeeze(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x):
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Inverted(nn.Module):
    """MobileNetV3's block, whose chain inside keeps the shape too."""

    def __init__(self, inner, outer, stride):
        super().__init__()
        wide = 4 * inner
        self.adds = inner == outer and stride == 1
        self.chain = nn.Sequential(
            nn.Sequential(nn.Conv2d(inner, wide, 1), nn.BatchNorm2d(wide), nn.ReLU6()),
            nn.Sequential(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide), nn.BatchNorm2d(wide), nn.ReLU6()),
            Squeeze(wide),
            nn.Sequential(nn.Conv2d(wide, outer, 1), nn.BatchNorm2d(outer)),
        )

    def forward(self, x):
        return x + self.chain(x) if self.adds else self.chain(x)


class Mobile(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU6())
        shapes = [(8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 16, 1)]
        self.blocks = nn.ModuleList(Inverted(*shape) for shape in shapes)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class VitBlock(nn.Module):
    """A transformer block as timm writes it."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        q, k, v = self.query(self.norm1(x)).chunk(3, -1)
        x = x + self.out((q @ k.transpose(1, 2) * x.shape[-1] ** -0.5).softmax(-1) @ v)
        return x + self.mlp(self.norm2(x))


class BlockVit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(1, 32, 4, 4), nn.Linear(32, 10)
        self.blocks = nn.Sequential(*(VitBlock(32) for _ in range(4)))

    def forward(self, x):
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


BLOCKS = {
    "residual": (Stages(), ["low.0", "low.1", "low.2", "high.1", "high.2"], ["high.0"]),
    "inverted": (Mobile(), ["blocks.0", "blocks.2", "blocks.3"], ["blocks.1"]),
    "transformer": (BlockVit(), [f"blocks.{index}" for index in range(4)], []),
    "sums in the forward": (Vit(), ["attentions.0", "attentions.1", "mlps.0", "mlps.1"], []),
    "one branch": (TinyCnn(), ["block"], []),
}


@pytest.fixture(scope="module")
def stages():
    torch.manual_seed(0)
    return trained_task(Stages(), epochs=3)


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_found_whole_and_those_that_change_the_shape_are_left(kind):
    network, able, left = BLOCKS[kind]
    assert removable(network.eval(), (torch.zeros(1, 1, 16, 16),)) == (able, left)


@pytest.mark.parametrize(
    ("network", "example"),
    [
        (UNet(), torch.zeros(1, 3, 32, 32)),
        (Recurrent(nn.GRU), torch.zeros(1, 20, 16)),
        (Encoder(), torch.zeros(1, 12, dtype=torch.int64)),
        (nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.zeros(1, 8)),
    ],
    ids=["skips", "recurrent", "torch's encoder", "single layers"],
)
def test_networks_without_such_blocks_are_refused_in_one_line(network, example, tmp_path):
    task = task_of(network, [example.numpy()])
    context = replace(context_of(task, None, tmp_path), calls=calls_of(task, 2))
    with pytest.raises(
        BadInput, match=r"^depth net: 0 blocks keep .* leaves 100% of the work; 1 fewer was asked"
    ):
        Depth(blocks=1).apply(task.model, task, context)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_network_without_blocks_runs_exports_and_has_identities_in_their_place(kind, tmp_path):
    network, able, _ = BLOCKS[kind]
    count = max(1, len(able) // 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    task = task_of(network, [noise(1, 1, 16, 16)])
    context = replace(context_of(task, None, tmp_path), calls=calls_of(task, 4))
    shallow = Depth(blocks=count).apply(network, task, context)
    (report,) = context.reports
    gone = [change.layer for change in report.changes]
    assert len(gone) == count
    assert all(type(shallow.get_submodule(name)) is nn.Identity for name in gone)
    assert all(type(shallow.get_submodule(name)) is not nn.Identity for name in set(able) - set(gone))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    model = float_graph(shallow, task, opset=20, ir_version=10)[0]
    assert check_export(shallow, model, calls_of(task, 4)).snr_db > 80
    assert report.params == tuple(sum(p.numel() for p in net.parameters()) for net in (network, shallow))
    assert report.macs[0] - report.macs[1] == sum(change.macs[0] for change in report.changes)


def test_a_block_that_does_nothing_goes_first(stages, tmp_path):
    network = stages.model
    idle = network.low[1].bn2
    before = idle.weight.clone(), idle.bias.clone()
    with torch.no_grad():
        idle.weight.zero_()
        idle.bias.zero_()
    context = context_of(stages, None, tmp_path)
    Depth(blocks=1).apply(network, stages, context)
    with torch.no_grad():
        idle.weight.copy_(before[0])
        idle.bias.copy_(before[1])
    (change,) = context.reports[0].changes
    assert (change.layer, change.error) == ("low.1", 0)


def test_damage_is_found_anew_after_each_block(stages, tmp_path):
    context = context_of(stages, None, tmp_path)
    Depth(blocks=3).apply(stages.model, stages, context)
    errors = [change.error for change in context.reports[0].changes]
    assert errors == sorted(errors)  # more is gone each time
    assert errors[0] > 0


def test_a_share_of_the_work_is_kept_at_most(stages, tmp_path):
    context = context_of(stages, None, tmp_path)
    for share in (0.8, 0.5):
        Depth(macs=share).apply(stages.model, stages, context)
        report = context.reports[-1]
        assert report.macs[1] <= share * report.macs[0]
        least = min(change.macs[0] for change in report.changes)
        assert report.macs[1] + least * len(report.changes) > share * report.macs[0]
    assert "high.0 change the shape" in context.reports[-1].notes[0]


def test_distillation_brings_back_what_the_blocks_knew(stages, tmp_path):
    context = context_of(stages, None, tmp_path)
    shallow = Depth(blocks=3).apply(stages.model, stages, context)
    taught = Distill(epochs=3).apply(shallow, stages, context)
    before, after = (
        accuracy(float_graph(net, stages, opset=20, ir_version=10)[0]) for net in (shallow, taught)
    )
    assert after > before + 0.1
    assert after > 0.9


def test_more_than_can_go_is_refused_with_what_can(stages, tmp_path):
    context = context_of(stages, None, tmp_path)
    with pytest.raises(
        BadInput, match=r"^depth net: 5 blocks keep the shape .* of the work; 6 fewer was asked"
    ):
        Depth(blocks=6).apply(stages.model, stages, context)
    with pytest.raises(BadInput, match=r"leaves \d+% of the work; 1% was asked; ask for less, and narrow"):
        Depth(macs=0.01).apply(stages.model, stages, context)
    assert not context.reports


def test_without_calibration_data_it_says_what_to_give(stages, tmp_path):
    context = replace(context_of(stages, None, tmp_path), calls=())
    with pytest.raises(BadInput, match=r"^depth net: the blocks are ranked on calibration data, .*; add"):
        Depth(blocks=1).apply(stages.model, stages, context)


def test_an_exported_network_is_refused(stages, tmp_path):
    frozen = torch.jit.trace(TinyCnn().eval(), torch.zeros(1, 1, 16, 16))
    with pytest.raises(BadInput, match=r"^depth net: an exported network has no blocks left"):
        Depth(blocks=1).apply(frozen, stages, context_of(stages, None, tmp_path))


@pytest.mark.parametrize("given", [{}, {"macs": 0.5, "blocks": 2}, {"blocks": 0}, {"macs": 1}])
def test_one_of_share_and_number_is_given(given):
    with pytest.raises(ValidationError):
        Depth(**given)


def test_a_block_whose_attributes_the_forward_reads_is_left_alone(tmp_path):
    class Reads(Stages):
        def forward(self, x):
            x = self.low(self.stem(x)) * self.low[1].conv1.weight.std()
            return self.head(self.high(x).mean((2, 3)))

    task = task_of(train(Reads(), 0), [noise(1, 1, 16, 16)])
    context = replace(context_of(task, None, tmp_path), calls=calls_of(task, 2))
    shallow = Depth(blocks=4).apply(task.model, task, context)
    assert isinstance(shallow.low[1], Residual)


def test_a_block_that_stands_in_two_places_goes_from_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.head = Residual(4, 4), nn.Conv2d(4, 2, 1)
            self.other = self.one

        def forward(self, x):
            return self.head(self.other(self.one(x)))

    network = without(Twice(), ["one"])
    assert type(network.one) is type(network.other) is nn.Identity
