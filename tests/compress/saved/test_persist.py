import copy
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import (
    DsCnn,
    Encoder,
    Grouped,
    ONet,
    TinyCnn,
    UNet,
    Vit,
    calibrated,
    digits,
    noise,
    task_of,
    trained_task,
)
from safetensors.torch import load_file, save_file
from steps import context_of
from torch import nn

import edgekit
from edgekit.cache import digest_file
from edgekit.compress.factorize import Factorize
from edgekit.compress.fuse import Fuse
from edgekit.compress.low_rank.levels import Levels
from edgekit.compress.prune import Prune
from edgekit.compress.pruning.blocks import without
from edgekit.compress.saved.modules import ARGUMENTS
from edgekit.compress.saved.persist import FILE, WEIGHTS, load_network, save_network
from edgekit.errors import BadInput

IMAGES = torch.from_numpy(digits()[0][:8])


class Shorten:
    """A block becomes an identity, as `depth` does it."""

    def apply(self, model, *_others):
        return without(copy.deepcopy(model), ["block"])


def low_rank(method):
    return Factorize(
        method=method, gain="size", min_rank=1, round_to=1, skip_small=1, preserve_first_last=False
    )


STEPS = {
    "prune": [Prune(macs=0.6)],
    "svd": [low_rank("svd")],
    "tucker": [low_rank("tucker")],
    "hlrtf": [low_rank("hlrtf")],
    "depth": [Shorten()],
    "fuse": [Fuse()],
    "depth, prune": [Shorten(), Prune(macs=0.6)],
    "factorize, prune": [low_rank("svd"), Prune(macs=0.6)],
    "prune, factorize, fuse": [Prune(macs=0.6), low_rank("hlrtf"), Fuse()],
}


@pytest.fixture(scope="module")
def task():
    return trained_task(TinyCnn(), 1)


def compressed(task, steps, folder):
    network, context = task.model, context_of(task, None, folder)
    for step in steps:
        network = step.apply(network, task, context)
    return network


@pytest.mark.parametrize("steps", STEPS)
def test_what_is_loaded_computes_the_same_bit_for_bit(steps, task, tmp_path):
    network = compressed(task, STEPS[steps], tmp_path)
    before = copy.deepcopy(task.model.state_dict())
    save_network(tmp_path / "net", task.model, network)
    loaded = load_network(tmp_path / "net", TinyCnn())
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), network(IMAGES))
        assert not torch.equal(loaded(IMAGES), task.model(IMAGES))
    assert str(loaded) == str(network)
    assert all(torch.equal(before[name], value) for name, value in task.model.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [FILE, WEIGHTS]


@pytest.mark.parametrize(
    ("make", "example", "steps"),
    [
        (DsCnn, noise(1, 1, 49, 10), [Prune(macs=0.6), Fuse()]),
        (UNet, noise(1, 3, 32, 32), [Prune(macs=0.6), Fuse()]),
        (ONet, noise(1, 3, 24, 24), [Prune(macs=0.6)]),
        (Grouped, noise(1, 3, 16, 16), [Prune(macs=0.6), low_rank("svd"), Fuse()]),
        (Vit, noise(1, 1, 16, 16), [Prune(macs=0.9, round_to=4), low_rank("svd")]),
        (Encoder, torch.ones(1, 12, dtype=torch.int64).numpy(), [Prune(macs=0.9, round_to=4)]),
    ],
    ids=["depthwise", "transposed", "prelu", "grouped and shared", "vit", "encoder"],
)
def test_networks_of_every_kind_come_back_in_a_fresh_instance_of_their_class(make, example, steps, tmp_path):
    shape = example.shape[1:]
    network = make().eval() if make in (Vit, Encoder, ONet) else calibrated(make(), *shape)
    task = task_of(network, [example])
    small = compressed(task, steps, tmp_path)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    save_network(tmp_path / "net", network, small)
    loaded, inputs = load_network(tmp_path / "net", make()), torch.from_numpy(example)
    with torch.no_grad():
        for one, other in zip(as_tuple(loaded(inputs)), as_tuple(small(inputs)), strict=True):
            assert torch.equal(one, other)


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, stride=1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the user's `net.py`, and in `saved` its network, pruned and factorized; its outputs."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "net.py").write_text(MODEL)
    space: dict = {}
    exec(MODEL, space)
    torch.manual_seed(0)
    task = task_of(space["Net"](), [noise(1, 1, 16, 16)])
    small = compressed(task, [Prune(macs=0.6), low_rank("tucker"), Fuse()], folder)
    save_network(folder / "saved", task.model, small)
    torch.save(small(IMAGES), folder / "outputs.pt")
    return folder, space["Net"]


def test_a_clean_process_with_the_users_model_file_alone_loads_it(saved):
    folder, _ = saved
    code = (
        "import sys, torch, net\n"
        "from pathlib import Path\n"
        "from edgekit.compress.saved.persist import load_network\n"
        "network = load_network(Path('saved'), net.Net())\n"
        "images, outputs = torch.load('images.pt'), torch.load('outputs.pt')\n"
        "same = (network(images) - outputs).abs().max().item() < 1e-6\n"
        "heavy = {'torch_pruning', 'tensorly', 'onnx', 'nncf', 'pickle5'} & set(sys.modules)\n"
        "print(same, heavy)\n"
    )
    torch.save(IMAGES, folder / "images.pt")
    where = {**os.environ, "PYTHONPATH": str(Path(edgekit.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=where, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True set()\n", done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("stride=1", "stride=2", "`body.0`: this code gives it stride=(2, 2), it had stride=(1, 1)"),
        ("nn.Conv2d(16, 16, 3), nn.ReLU()", "nn.Conv2d(16, 16, 3)", "`body.4`: this code makes no such"),
        ("nn.BatchNorm2d(16)", "nn.Identity()", "`body.1`: this code makes a Identity of it"),
        ("self.head = nn", "self.more, self.head = nn.ReLU(), nn", "`more`: this code makes this ReLU"),
        ("class Net", "Net = None\nclass Other", "the network itself: this code makes a Other of it"),
        ("self.head = nn", "self.scale = nn.Parameter(torch.ones(1)); self.head = nn", "`scale`: "),
    ],
)
def test_other_code_is_refused_in_one_line_that_names_the_module(saved, old, new, said):
    folder, _ = saved
    space: dict = {}
    exec(MODEL.replace(old, new), space)
    with pytest.raises(BadInput) as refusal:
        load_network(folder / "saved", (space["Net"] or space["Other"])())
    assert said in str(refusal.value)
    assert str(folder / "saved") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_layers_of_the_users_own_classes_and_free_parameters_are_narrowed_too(tmp_path):
    class Same(nn.Conv2d):
        def forward(self, x):
            return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))

    class NormAct(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.second = Same(3, 32, 3), NormAct(32), Same(32, 4, 3)
            self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 32).reshape(32, 1, 1))

        def forward(self, x):
            return self.second(self.norm(self.first(x)) * self.scale)

    network = calibrated(Net(), 3, 16, 16)
    task = task_of(network, [noise(1, 3, 16, 16)])
    small = Prune(macs=0.6).apply(network, task, context_of(task, None, tmp_path))
    assert small.scale.shape[0] < 32
    save_network(tmp_path / "net", network, small)
    loaded, inputs = load_network(tmp_path / "net", Net()), torch.from_numpy(noise(2, 3, 16, 16))
    assert type(loaded.first) is Same
    assert torch.equal(loaded(inputs), small(inputs))


class Tied(nn.Module):
    """One layer under two names, and two layers of one weight."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(8, 8)
        self.same = self.one
        self.encode, self.decode = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.encode(self.same(self.one(x).relu())))


def test_what_was_one_tensor_is_one_tensor_again_and_stands_once_in_the_file(tmp_path):
    network = copy.deepcopy(Tied())
    save_network(tmp_path / "net", Tied(), network)
    assert sorted(load_file(tmp_path / "net" / WEIGHTS)) == ["encode.weight", "one.bias", "one.weight"]
    loaded = load_network(tmp_path / "net", Tied())
    assert loaded.decode.weight is loaded.encode.weight
    assert loaded.same is loaded.one
    assert torch.equal(loaded(torch.eye(8)), network(torch.eye(8)))


def test_tensors_that_a_step_has_told_apart_stay_apart(tmp_path):
    network = Tied()
    network.decode.weight = nn.Parameter(network.encode.weight.detach() * 2)
    save_network(tmp_path / "net", Tied(), network)
    loaded = load_network(tmp_path / "net", Tied())
    assert torch.equal(loaded.decode.weight, loaded.encode.weight * 2)
    assert torch.equal(loaded.encode.weight, network.encode.weight)


def test_a_layer_under_two_names_of_which_one_was_replaced_is_refused(tmp_path):
    network = copy.deepcopy(Tied())
    network.same = nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 8))
    with pytest.raises(BadInput, match=r"^`same`: was one with another module"):
        save_network(tmp_path / "net", Tied(), network)


def test_a_network_in_double_or_half_precision_keeps_it(tmp_path):
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    small = copy.deepcopy(network).double()
    small[2] = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2)).half()
    save_network(tmp_path / "net", network, small)
    loaded = load_network(tmp_path / "net", copy.deepcopy(network))
    assert loaded[0].weight.dtype == torch.float64
    assert loaded[2][1].bias.dtype == torch.float16


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "block", nn.LSTM(4, 4)),
        lambda net: setattr(net.block, "0", nn.Sequential(nn.LSTM(4, 4))),
        lambda net: net.block.append(nn.Dropout()),
        lambda net: net.register_parameter("more", nn.Parameter(torch.ones(2))),
    ],
)
def test_a_change_that_is_no_data_is_refused_when_it_is_saved(change, tmp_path):
    network = TinyCnn()
    change(network)
    with pytest.raises(BadInput, match=r"^`(block|block.0.0|more|block.2)`: "):
        save_network(tmp_path / "net", TinyCnn(), network)
    assert not (tmp_path / "net").exists()


def test_every_argument_of_every_known_layer_is_written():
    not_said = {"device", "dtype", "init", "momentum", "_weight", "_freeze", "args", "kwargs"}
    for name, arguments in ARGUMENTS.items():
        takes = set(inspect.signature(getattr(nn, name)).parameters) - not_said
        assert takes == set(arguments), name


width = st.integers(1, 6)


@st.composite
def layers(draw, depth=1):
    """A layer of any known type, or a container of some, with drawn arguments."""
    kinds = ["conv", "transposed", "linear", "norm", "group", "layer", "prelu", "identity", "embedding"]
    kind = draw(st.sampled_from(kinds + ["sequential", "levels"] * depth))
    one, other, flag, axes = draw(width), draw(width), draw(st.booleans()), draw(st.integers(1, 3))
    if kind in ("conv", "transposed"):
        groups, size = draw(st.integers(1, 2)), draw(st.integers(1, 3))
        mode = draw(st.sampled_from(["zeros", "circular", "reflect"])) if kind == "conv" else "zeros"
        made = getattr(nn, f"Conv{'Transpose' if kind == 'transposed' else ''}{axes}d")
        more = {"padding": "same"} if kind == "conv" and flag else {"padding": 1, "stride": 2}
        return made(one * groups, other * groups, size, groups=groups, bias=flag, padding_mode=mode, **more)
    if kind == "norm":
        made = draw(st.sampled_from(["BatchNorm", "InstanceNorm"]))
        return getattr(nn, f"{made}{axes}d")(one, affine=flag, eps=draw(st.sampled_from([1e-5, 1e-3])))
    if kind == "sequential":
        return nn.Sequential(*draw(st.lists(layers(depth=0), max_size=3)))
    if kind == "levels":
        return Levels(draw(layers(depth=0)), draw(layers(depth=0)))
    return {
        "linear": lambda: nn.Linear(one, other, bias=flag),
        "group": lambda: nn.GroupNorm(one, one * other, eps=1e-3, affine=flag),
        "layer": lambda: nn.LayerNorm((one, other), elementwise_affine=flag),
        "prelu": lambda: nn.PReLU(one),
        "identity": nn.Identity,
        "embedding": lambda: nn.Embedding(one + 1, other, padding_idx=1 if flag else None),
    }[kind]()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_known_layers_in_the_place_of_any_others_come_back(tmp_path, data):
    original = nn.Sequential(*data.draw(st.lists(layers(), min_size=1, max_size=4)))
    network = copy.deepcopy(original)
    for index in range(len(network)):
        if data.draw(st.booleans()):
            network[index] = data.draw(layers())
    fresh = copy.deepcopy(original)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            tensor.zero_()
    save_network(tmp_path / "net", original, network)
    loaded = load_network(tmp_path / "net", fresh)
    assert str(loaded) == str(network)
    wanted = network.state_dict()
    assert list(loaded.state_dict()) == list(wanted)
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())


def edited(folder, target, edit, weights=None):
    """A copy of what was saved, its record changed; its digest is right again where the weights are too."""
    target.mkdir()
    record = json.loads((folder / "saved" / FILE).read_text())
    tensors = load_file(folder / "saved" / WEIGHTS)
    if weights:
        weights(tensors)
    save_file(tensors, target / WEIGHTS)
    record["weights"] = digest_file(target / WEIGHTS)
    edit(record)
    (target / FILE).write_text(json.dumps(record))
    return target


def narrowed(record, width):
    record["changed"]["body.0"]["arguments"]["out_channels"] = width


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda r: r.update(schema="edgekit.network/2"), "is no saved network: schema"),
        (lambda r: r.update(weights="0" * 64), "its digest differs"),
        (lambda r: r["changed"].update({"body.2": {"type": "LSTM"}}), "`body.2`: a saved network holds no L"),
        (lambda r: r["changed"].update({"body.9": {"type": "Identity"}}), "`body.9`: there is no such"),
        (lambda r: r["changed"].update({"body.2": {"type": "Linear"}}), "a Linear has the arguments"),
        (lambda r: narrowed(r, 2**30), "`body.0.weight`: is float32 [8, 1, 3, 3], not float32 [1073741824,"),
        (lambda r: narrowed(r, "x"), "`body.0`: the arguments make no"),
        (lambda r: narrowed(r, 2**70), "is no saved network: chan"),
        (lambda r: r["changed"].update({"head": {"type": "Identity", "inside": {"a": {"type": "Identity"}}}}),
         "a Identity holds no other"),
        (lambda r: r.update(ties={"head.weight": "body.0.weight"}), "`head.weight`: cannot be the same"),
        (lambda r: r.update(more=1), "is no saved network: more"),
        (lambda r: r["changed"].pop("body.3"), "`body.3."),
        (lambda r: r["changed"].update({"": {"type": "Identity"}}), "makes no such parameter"),
    ],
)  # fmt: skip
def test_a_file_that_was_changed_is_refused_in_one_line(saved, edit, said, tmp_path):
    folder, make = saved
    with pytest.raises(BadInput) as refusal:
        load_network(edited(folder, tmp_path / "net", edit), make())
    assert said in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("head.bias"), "`head.bias`: the saved network has no such parameter"),
        (lambda t: t.update(more=torch.ones(1)), "`more`: the user's code makes no such parameter"),
        (lambda t: t.update({"head.bias": torch.ones(3)}), "`head.bias`: is float32 [3], not float32 [10]"),
        (lambda t: t.update({"head.bias": torch.ones(10).double()}), "is float64 [10], not float32 [10]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(saved, change, said, tmp_path):
    folder, make = saved
    with pytest.raises(BadInput) as refusal:
        load_network(edited(folder, tmp_path / "net", len, change), make())
    assert said in str(refusal.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_gives_one_line(saved, tmp_path_factory, data):
    folder, make = saved
    target = tmp_path_factory.mktemp("damaged")
    for name in (FILE, WEIGHTS):
        content = bytearray((folder / "saved" / name).read_bytes())
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
        (target / name).write_bytes(content)
    if all((target / n).read_bytes() == (folder / "saved" / n).read_bytes() for n in (FILE, WEIGHTS)):
        return
    try:
        load_network(target, make())
        line = "white space, or the version that wrote it"
        assert (target / WEIGHTS).read_bytes() == (folder / "saved" / WEIGHTS).read_bytes()
    except BadInput as refusal:
        line = str(refusal)
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"{}", b"\xff", b"null"])
def test_a_record_that_is_none_is_refused(content, tmp_path):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BadInput, match="is no saved network"):
        load_network(tmp_path, TinyCnn())


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"network\.json: no such file"):
        load_network(tmp_path, TinyCnn())


def test_an_older_network_is_replaced_and_anything_else_is_not(tmp_path):
    for seed in range(2):
        torch.manual_seed(seed)
        network = TinyCnn()
        save_network(tmp_path / "net", TinyCnn(), network)
    assert torch.equal(load_network(tmp_path / "net", TinyCnn()).head.weight, network.head.weight)
    (tmp_path / "net" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds something else"):
        save_network(tmp_path / "net", TinyCnn(), network)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net"]


def test_what_was_saved_before_stays_when_saving_fails(tmp_path, monkeypatch):
    network = TinyCnn()
    save_network(tmp_path / "net", TinyCnn(), network)
    before = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}

    def full(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(edgekit.errors.OutsideFailure, match="No space left"):
        save_network(tmp_path / "net", TinyCnn(), TinyCnn())
    assert {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
