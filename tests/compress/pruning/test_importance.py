from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from networks import DsCnn, Grouped, PNet, TinyCnn, calibrated, noise, task_of
from steps import context_of
from torch import nn

from edgekit.compress.pruning.importance import Criterion, importance_of
from edgekit.compress.pruning.narrow import narrow_by, narrowable
from edgekit.errors import BadInput

WIDTH = 6
ODD = 2  # the channel that each criterion is to rank last


class Pair(nn.Module):
    """Two layers with a batch norm between; the channels of the first are what is ranked."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm = nn.Conv2d(1, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)
        self.second = nn.Conv2d(WIDTH, 4, 1)

    def forward(self, x):
        return self.second(self.norm(self.first(x)).relu()).mean((2, 3))


def scores(network, criterion, *, labels=True, example=(1, 1, 8, 8), **changes):
    """The scores of the first group of a network."""
    calls = [(noise(*example, seed=seed),) for seed in range(8)]
    images = torch.from_numpy(noise(8, *example[1:]))
    batch = (images, torch.arange(8) % 4) if labels else images
    task = replace(task_of(network, calls[0], calls=calls, training=lambda: [batch]), **changes)
    found = [dict(zip(["x"], call, strict=True)) for call in task.calibration or ()]
    layers = narrowable(network, tuple(torch.from_numpy(array) for array in calls[0]))
    return importance_of(criterion, network, layers, task, found)


def make_odd(network, criterion):
    """Change one channel so that only this criterion's reason speaks against it."""
    with torch.no_grad():
        if criterion in ("l1", "l2"):
            network.first.weight[ODD] = network.second.weight[:, ODD] = 0
            network.norm.weight[ODD] = 0
        elif criterion in ("taylor", "fisher", "activation-variance"):
            network.norm.bias[ODD] = -100  # its ReLU never opens
            network.first.weight[ODD] *= 10
        elif criterion == "bn-scale":
            network.norm.weight[ODD] = 0.1
            network.first.weight[ODD] *= 10
        elif criterion == "geometric-median":
            network.first.weight[ODD] = network.first.weight[[0, 1, 3, 4, 5]].mean(0)
        elif criterion == "feature-rank":
            network.first.weight[ODD] = 0  # one value everywhere: of rank 1
            network.norm.bias[ODD] = 5
            network.second.weight[:, ODD] *= 10


@pytest.mark.parametrize("criterion", [name for name in get_args(Criterion) if name != "random"])
def test_a_criterion_ranks_the_channel_last_that_it_is_made_to_find(criterion):
    network = Pair().eval()
    make_odd(network, criterion)
    (found,) = scores(network, criterion).scores.values()
    assert found.shape == (WIDTH,)
    assert found.argmin() == ODD
    assert found.mean() == pytest.approx(1)


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "activation-variance"])
def test_a_loud_channel_that_nothing_passes_is_kept_by_norms_and_not_by_data(criterion):
    network = Pair().eval()
    make_odd(network, criterion)
    (by_norm,), (by_data,) = scores(network, "l2").scores.values(), scores(network, criterion).scores.values()
    assert by_norm.argmax() == ODD
    assert by_data.argmin() == ODD


def test_random_scores_are_the_same_each_time_and_differ_between_groups():
    network = TinyCnn().eval()
    once, twice = (scores(network, "random", example=(1, 1, 16, 16)).scores for _ in range(2))
    assert all(np.array_equal(once[root], twice[root]) for root in once)
    assert len({values[0] for values in once.values()}) == len(once)


@pytest.mark.parametrize("criterion", get_args(Criterion))
def test_channels_that_go_together_have_one_score_each_and_the_network_stays(criterion):
    network = TinyCnn().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = scores(network, criterion, example=(1, 1, 16, 16))
    assert {root: len(values) for root, values in found.scores.items()} == {
        "stem.0": 16, "block.3": 32, "block.0": 32,
    }  # fmt: skip
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_channel_that_one_of_two_coupled_layers_fills_is_kept():
    network = TinyCnn(8).eval()
    with torch.no_grad():
        network.down[1].weight[:] = 1
        network.down[1].bias[:] = 0
        network.down[1].bias[:2] = -100  # closed by the first writer,
        network.block[4].weight[:] = 1
        network.block[4].weight[0] = 20  # one of them loud in the second
        network.block[4].weight[1] = 0
    found = scores(network, "activation-variance", example=(1, 1, 16, 16)).scores["block.3"]
    assert found.argmax() == 0
    assert found.argmin() == 1


def test_what_a_criterion_says_nothing_about_is_ranked_by_l1_and_named():
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    found, plain = scores(network, "bn-scale"), scores(network, "l1")
    assert found.fallback == ("0",)
    assert plain.fallback == ()
    assert all(np.array_equal(found.scores[root], plain.scores[root]) for root in plain.scores)


def test_a_feature_rank_is_that_of_the_maps_alone():
    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.second(self.first(x).relu().mean((2, 3))).relu())

    assert scores(Ends().eval(), "feature-rank").fallback == ("second",)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
@pytest.mark.parametrize("kind", ["without labels", "without training data", "several outputs"])
def test_gradients_need_no_labels(criterion, kind):
    network = Pair().eval()
    make_odd(network, criterion)
    if kind == "several outputs":
        found = scores(PNet().eval(), criterion, labels=False, example=(1, 3, 24, 24)).scores
        assert all(values.std() > 0 for values in found.values())
        return
    changes = {"training": None} if kind == "without training data" else {}
    (found,) = scores(network, criterion, labels=False, **changes).scores.values()
    assert found.argmin() == ODD


def test_squared_gradients_are_those_of_single_samples():
    network = Pair().eval()
    by_sample = scores(network, "fisher").scores["first"]
    parameters = dict(network.named_parameters())
    images, labels = torch.from_numpy(noise(8, 1, 8, 8)), torch.arange(8) % 4
    squares = dict.fromkeys(parameters, 0)
    for image, label in zip(images, labels, strict=True):
        loss = nn.functional.cross_entropy(network(image[None]), label[None])
        grads = torch.autograd.grad(loss, list(parameters.values()))
        for name, grad in zip(parameters, grads, strict=True):
            squares[name] = squares[name] + grad.square() / 8
    second = (parameters["second.weight"].square() * squares["second.weight"]).sum((0, 2, 3))
    first = (parameters["first.weight"].square() * squares["first.weight"]).sum((1, 2, 3))
    norm = parameters["norm.weight"].square() * squares["norm.weight"]
    expected = (first + second + norm).detach().numpy()
    np.testing.assert_allclose(by_sample, expected / expected.mean(), rtol=1e-4)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_without_any_data_gradients_are_refused_in_one_line(criterion):
    with pytest.raises(
        BadInput, match=rf"^prune net: the criterion {criterion} needs training or calibration"
    ):
        scores(Pair().eval(), criterion, training=None, calibration=None)


@pytest.mark.parametrize("criterion", ["activation-variance", "feature-rank"])
def test_without_calibration_data_activations_are_refused_in_one_line(criterion):
    with pytest.raises(BadInput, match=rf"^prune net: the criterion {criterion} needs calibration data; add"):
        scores(Pair().eval(), criterion, calibration=None)


def test_data_that_does_not_fit_is_refused_in_one_line():
    wrong = [(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))]
    with pytest.raises(
        BadInput, match=r"^prune net: no gradients can be taken on the task's data: RuntimeError"
    ):
        scores(Pair().eval(), "taylor", training=lambda: wrong)


@pytest.mark.parametrize("network", [DsCnn(), Grouped()], ids=["depthwise", "grouped"])
@pytest.mark.parametrize("criterion", ["fisher", "geometric-median", "activation-variance", "feature-rank"])
def test_depthwise_and_grouped_networks_are_narrowed_by_every_criterion(network, criterion):
    shape = (1, 1, 49, 10) if isinstance(network, DsCnn) else (1, 3, 16, 16)
    network = calibrated(network, *shape[1:])
    found = scores(network, criterion, labels=False, example=shape)
    inputs = (torch.zeros(shape),)
    layers = narrowable(network, inputs)
    values = {root: torch.from_numpy(array) for root, array in found.scores.items()}
    narrow = narrow_by(network, inputs, {name: width // 2 for name, width in layers.items()}, values)
    assert narrow(*inputs).shape == network(*inputs).shape
    assert all(narrow.get_submodule(name).weight.shape[0] == width // 2 for name, width in layers.items())


def test_the_channels_that_go_are_those_of_least_score(tmp_path):
    network = Pair().eval()
    task = task_of(network, [noise(1, 1, 8, 8)])
    inputs = tuple(map(torch.from_numpy, context_of(task, None, tmp_path).example.values()))
    values = torch.tensor([0.1, 9.0, 0.2, 8.0, 7.0, 0.3])
    narrow = narrow_by(network, inputs, {"first": 3}, {"first": values})
    assert torch.equal(narrow.first.weight, network.first.weight[[1, 3, 4]])
    assert torch.equal(narrow.second.weight, network.second.weight[:, [1, 3, 4]])
