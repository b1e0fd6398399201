from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import PNet, TinyCnn, noise, task_of
from steps import context_of

from edgekit.compress.distill import Distill
from edgekit.compress.training import list_or_fresh
from edgekit.errors import BadInput


def parameters(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_the_same_seed_gives_the_same_network_and_leaves_both_as_they_were(tiny_cnn, tmp_path):
    student, context = TinyCnn(8).eval(), context_of(tiny_cnn, None, tmp_path)
    before, teacher = parameters(student).clone(), parameters(tiny_cnn.model).clone()
    once, twice = (Distill(epochs=1).apply(student, tiny_cnn, context) for _ in range(2))
    assert torch.equal(parameters(once), parameters(twice))
    assert not torch.equal(parameters(once), before)
    assert torch.equal(parameters(student), before)
    assert torch.equal(parameters(tiny_cnn.model), teacher)
    assert not once.training
    assert torch.get_num_threads() >= 1


def test_without_training_data_it_says_what_to_give(tiny_cnn, tmp_path):
    bare = replace(tiny_cnn, training=None)
    with pytest.raises(BadInput, match=r"^distill net: distill needs training data and a torch network; add"):
        Distill().apply(tiny_cnn.model, bare, context_of(bare, None, tmp_path))


def test_empty_training_data_is_refused(tiny_cnn, tmp_path):
    empty = replace(tiny_cnn, training=list)
    with pytest.raises(BadInput, match=r"^distill: the training data has no batch$"):
        Distill().apply(tiny_cnn.model, empty, context_of(empty, None, tmp_path))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_a_few_batches_are_enough_to_train_on(tiny_cnn, count, tmp_path):
    few = replace(tiny_cnn, training=lambda: list(tiny_cnn.training())[:1] * count)
    taught = Distill(epochs=1).apply(TinyCnn(8).eval(), few, context_of(few, None, tmp_path))
    assert torch.isfinite(parameters(taught)).all()


def test_a_loss_that_runs_away_is_refused(tiny_cnn, tmp_path):
    with pytest.raises(BadInput, match=r"^distill: the loss is no longer finite; lower learning_rate$"):
        Distill(epochs=2, learning_rate=0.99, alpha=1, temperature=1e20).apply(
            tiny_cnn.model, tiny_cnn, context_of(tiny_cnn, None, tmp_path)
        )


def test_batches_of_numpy_arrays_teach_the_same_as_batches_of_tensors(tiny_cnn, tmp_path):
    arrays = [tuple(tensor.numpy() for tensor in batch) for batch in tiny_cnn.training()]
    student = TinyCnn(8).eval()
    once, twice = (
        Distill(epochs=1).apply(student, task, context_of(task, None, tmp_path))
        for task in (tiny_cnn, replace(tiny_cnn, training=lambda: arrays))
    )
    assert torch.equal(parameters(once), parameters(twice))


class TooMany(list):
    """Says that it holds one batch."""

    def __len__(self):
        return 1


IMAGES, LABELS = torch.zeros(4, 1, 16, 16), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("batches", "reason"),
    [
        ([{"image": IMAGES, "label": LABELS}], "KeyError"),
        ([(IMAGES.tolist(), LABELS)], "TypeError"),
        ([(torch.zeros(4, 2, 16, 16), LABELS)], "RuntimeError"),
        ([(IMAGES.double().numpy(), LABELS)], "RuntimeError"),
        ([(IMAGES, LABELS + 10)], "IndexError"),
        (TooMany([(IMAGES, LABELS)] * 9), "ValueError"),
    ],
)
def test_training_data_of_another_form_is_refused_in_one_line(tiny_cnn, batches, reason, tmp_path):
    task = replace(tiny_cnn, training=lambda: batches)
    with pytest.raises(
        BadInput, match=rf"^distill net: cannot be trained on the training data: {reason}: .*; yield"
    ):
        Distill(epochs=1).apply(tiny_cnn.model, task, context_of(task, None, tmp_path))


def test_several_outputs_without_labels_are_taught_by_their_distance(tmp_path):
    def training():
        return [torch.from_numpy(noise(4, 3, 24, 32, seed=seed)) for seed in range(4)]

    torch.manual_seed(0)
    task = task_of(PNet(), [noise(1, 3, 24, 32)], training=training)
    torch.manual_seed(1)
    student = PNet().eval()
    taught = Distill(epochs=8, learning_rate=0.02).apply(student, task, context_of(task, None, tmp_path))
    batch = torch.from_numpy(noise(4, 3, 24, 32))

    def distance(network):
        with torch.no_grad():
            pairs = zip(network(batch), task.model(batch), strict=True)
            return float(np.mean([float((a - b).square().mean()) for a, b in pairs]))

    assert distance(taught) < 0.8 * distance(student)


def test_batches_that_can_be_read_once_are_kept():
    assert list_or_fresh(lambda: iter([1, 2])) == [1, 2]
    fresh = [1, 2]
    assert list_or_fresh(lambda: fresh) is fresh
