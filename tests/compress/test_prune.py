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
)
from steps import context_of
from torch import nn

from edgekit.compress.distill import Distill
from edgekit.compress.narrow import narrow_by, narrowable
from edgekit.compress.prune import Prune, count_macs
from edgekit.errors import BadInput
from edgekit.runtimes.float_graph import float_graph
from edgekit.verify import check_export

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
