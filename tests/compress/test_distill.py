import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as arrays_of
from networks import Encoder, PNet, Recurrent, Tagger, TinyCnn, UNet, Vit, digits, noise, task_of
from steps import context_of
from torch import nn

from edgekit.compress.distill import Distill, Finetune
from edgekit.compress.low_rank.hierarchical import hierarchical_module, overlap
from edgekit.compress.pruning.narrow import narrow_by, narrowable
from edgekit.compress.teaching.adapters import inside_of
from edgekit.compress.teaching.losses import (
    DistillationLoss,
    attention_distance,
    classifies,
    energy_ratio,
    label_loss,
    relative_distance,
)
from edgekit.compress.teaching.training_data import list_or_fresh
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


def accuracy_of(network):
    """On the digits that training never saw."""
    images, labels = (torch.from_numpy(array[:400]) for array in digits())
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


@pytest.fixture(scope="module")
def pruned(tiny_cnn):
    """The digits network with half of its channels."""
    inputs = (torch.from_numpy(tiny_cnn.example[0]),)
    layers = narrowable(tiny_cnn.model, inputs)
    return narrow_by(tiny_cnn.model, inputs, {name: width // 2 for name, width in layers.items()})


def unlabelled(task):
    return replace(task, training=lambda: [images for images, _ in task.training()])


@pytest.mark.parametrize(
    "step",
    [
        Distill(epochs=4),
        Distill(epochs=4, kind="features"),
        Distill(epochs=4, kind="features", layers=("stem", "block")),
        Distill(epochs=4, kind="attention"),
        Finetune(epochs=4),
    ],
    ids=["logits", "features", "named-features", "attention", "finetune"],
)
def test_every_kind_recovers_a_pruned_network(tiny_cnn, pruned, step, tmp_path):
    before, context = copy.deepcopy(pruned), context_of(tiny_cnn, None, tmp_path)
    taught = step.apply(pruned, tiny_cnn, context)
    assert accuracy_of(taught) > max(accuracy_of(pruned) + 0.3, accuracy_of(tiny_cnn.model) - 0.1)
    assert torch.equal(parameters(pruned), parameters(before))
    assert taught.state_dict().keys() == before.state_dict().keys()  # the adapters are gone
    assert not any(module._forward_hooks for module in taught.modules())
    (report,) = context.reports
    assert (report.step, report.changes) == (step.step, ())
    assert report.params[0] == report.params[1] == sum(p.numel() for p in pruned.parameters())
    assert report.macs[0] == report.macs[1] > 0
    assert report.seconds > 0
    assert context.taught == [taught]


@pytest.mark.parametrize("kind", ["logits", "features", "attention"])
def test_no_kind_needs_labels(tiny_cnn, pruned, kind, tmp_path):
    bare = unlabelled(tiny_cnn)
    taught = Distill(epochs=4, kind=kind).apply(pruned, bare, context_of(bare, None, tmp_path))
    assert accuracy_of(taught) > max(accuracy_of(pruned) + 0.3, accuracy_of(tiny_cnn.model) - 0.15)


def test_layers_are_chosen_at_the_end_of_each_resolution(tiny_cnn, pruned):
    inputs = (torch.from_numpy(tiny_cnn.example[0]),)
    found = inside_of(pruned, tiny_cnn.model, inputs, "features", ())
    assert [(pair.name, pair.widths) for pair in found.pairs] == [("stem", (8, 16)), ("block", (16, 32))]
    assert [type(adapter) for adapter in found.adapters] == [nn.Linear, nn.Linear]
    whole = inside_of(tiny_cnn.model, tiny_cnn.model, inputs, "features", ())
    assert [type(adapter) for adapter in whole.adapters] == [nn.Identity, nn.Identity]


def test_the_inside_of_a_network_is_no_distance_from_itself(tiny_cnn):
    images = torch.from_numpy(noise(2, 1, 16, 16))
    twin = copy.deepcopy(tiny_cnn.model)
    for kind in ("features", "attention"):
        inside = inside_of(twin, tiny_cnn.model, (images,), kind, ())
        inside.attach(twin, tiny_cnn.model)
        twin(images)
        tiny_cnn.model(images)
        assert inside.loss().item() == 0
        twin.eval()(images.flip(2))
        assert inside.loss().item() > 0.01
        inside.detach()


@pytest.mark.parametrize(
    ("network", "example", "kinds"),
    [
        (Vit, noise(1, 1, 16, 16), ("features", "attention")),
        (PNet, noise(1, 3, 24, 32), ("features", "attention")),
        (UNet, noise(1, 3, 16, 16), ("features", "attention")),
        (lambda: Recurrent(nn.GRU), noise(1, 5, 16), ("logits",)),
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), noise(1, 6), ("features",)),
    ],
    ids=["vit", "pnet", "unet", "gru", "mlp"],
)
def test_networks_of_other_kinds_are_taught_inside_too(network, example, kinds, tmp_path):
    torch.manual_seed(0)
    batches = [torch.from_numpy(noise(4, *example.shape[1:], seed=seed)) for seed in range(3)]
    task = task_of(network(), [example], training=lambda: batches)
    torch.manual_seed(1)
    student = network().eval()
    for kind in kinds:
        taught = Distill(epochs=6, learning_rate=0.01, kind=kind).apply(
            student, task, context_of(task, None, tmp_path)
        )
        with torch.no_grad():
            before, after = (
                relative_distance(net(batches[0]), task.model(batches[0]), None) for net in (student, taught)
            )
        assert after < before


def test_a_layer_that_is_not_there_is_refused_with_the_near_one(tiny_cnn, pruned, tmp_path):
    context = context_of(tiny_cnn, None, tmp_path)
    with pytest.raises(BadInput, match=r"^distill: `blok` is no layer that both.*; did you mean `block`"):
        Distill(kind="features", layers=("blok",)).apply(pruned, tiny_cnn, context)
    task = task_of(nn.Linear(4, 2), [noise(1, 4)], training=lambda: [torch.zeros(2, 4)])
    with pytest.raises(BadInput, match=r"^distill: no layer inside .* by attention; use kind logits$"):
        Distill(kind="attention").apply(task.model, task, context_of(task, None, tmp_path))


def test_a_chain_is_taught_by_the_network_of_the_step_before(tiny_cnn, pruned, tmp_path):
    bare, context = unlabelled(tiny_cnn), context_of(tiny_cnn, None, tmp_path)
    with pytest.raises(
        BadInput, match=r"^distill: no distill or finetune step comes before.*; use teacher o"
    ):
        Distill(teacher="previous").apply(pruned, bare, context)
    assistant = copy.deepcopy(tiny_cnn.model)
    with torch.no_grad():  # gives half the original's scores, by which its students are known
        assistant.head.weight.mul_(0.5)
        assistant.head.bias.mul_(0.5)
    context.taught.append(assistant)
    students = {}
    for teacher in ("original", "previous"):
        context.taught[1:] = []
        students[teacher] = Distill(epochs=3, alpha=1, teacher=teacher).apply(pruned, bare, context)
        assert context.taught[-1] is students[teacher]
    images = torch.from_numpy(digits()[0][:400])
    with torch.no_grad():
        sizes = {teacher: float(student(images).std()) for teacher, student in students.items()}
    assert sizes["previous"] < 0.75 * sizes["original"]


def test_the_overlap_of_levels_falls_where_it_is_weighed(tiny_cnn, tmp_path):
    student = copy.deepcopy(tiny_cnn.model)
    student.block[0] = hierarchical_module(student.block[0], (16, 16, 16, 8))
    with torch.no_grad():  # a start that is bad, or it would be kept
        student.head.weight.mul_(-1)
    few = replace(tiny_cnn, training=lambda: list(tiny_cnn.training())[:8])
    after = {}
    for weight in (0.0, 5.0):
        step = Distill(epochs=2, learning_rate=0.02, level_overlap=weight, schedule="constant")
        taught = step.apply(student, few, context_of(few, None, tmp_path))
        (found,) = overlap(taught)
        after[weight] = float(found)
    assert after[5.0] < after[0.0]


def test_an_onnx_file_is_refused(tiny_graph, tmp_path):
    task = task_of(tiny_graph, [noise(1, 1, 16, 16)], training=lambda: [torch.zeros(2, 1, 16, 16)])
    for step in (Distill(), Finetune()):
        with pytest.raises(
            BadInput, match=rf"^{step.step} net: an ONNX file cannot be trained; give the torch"
        ):
            step.apply(tiny_graph, task, context_of(task, None, tmp_path))


def test_finetune_follows_numbers_and_refuses_what_it_cannot_read(tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(64, 6)
    wanted = inputs @ torch.randn(6, 2)
    task = task_of(nn.Linear(6, 2), [noise(1, 6)], training=lambda: [(inputs, wanted)] * 4)
    student = nn.Linear(6, 2).eval()
    loss = label_loss(student(inputs), wanted)
    assert loss is not None
    lesson = Finetune(epochs=20)
    task = replace(task, model=nn.Linear(6, 2).eval())
    with torch.no_grad():
        task.model.weight.copy_(torch.linalg.lstsq(inputs, wanted).solution.T)
        task.model.bias.zero_()
    taught = lesson.apply(student, task, context_of(task, None, tmp_path))
    assert label_loss(taught(inputs), wanted) < 0.5 * loss
    for labels in (None, torch.zeros(64, 3), {"a": wanted}):
        odd = replace(task, training=lambda labels=labels: [(inputs, labels)])
        with pytest.raises(BadInput, match=r"^finetune net: the labels are neither class numbers nor"):
            Finetune(epochs=1).apply(student, odd, context_of(odd, None, tmp_path))


@pytest.mark.parametrize(
    ("network", "example", "expected"),
    [
        (TinyCnn(), noise(1, 1, 16, 16), True),
        (Vit(), noise(1, 1, 16, 16), True),
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), noise(1, 4), True),
        (nn.Linear(4, 1), noise(1, 4), False),
        (Tagger(), noise(1, 3, 33, 33), False),
        (Encoder(), np.ones((1, 5), np.int64), False),
        (PNet(), noise(1, 3, 24, 24), False),
        (Recurrent(nn.LSTM), noise(1, 5, 16), False),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), noise(1, 3, 9, 9), False),
    ],
    ids=["cnn", "vit", "softmax", "number", "tagger", "encoder", "pnet", "lstm", "pooled"],
)
def test_class_scores_are_told_from_other_outputs(network, example, expected):
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert classifies(network.eval(), (torch.from_numpy(example),)) is expected


scores = arrays_of(np.float32, (3, 5), elements=st.floats(-8, 8, width=32))


@settings(max_examples=60, deadline=None)
@given(one=scores, other=scores, temperature=st.floats(0.5, 8))
def test_the_loss_of_scores_is_least_at_the_teacher_and_the_same_for_probabilities(one, other, temperature):
    got, wanted = torch.from_numpy(one), torch.from_numpy(other)
    loss = DistillationLoss(temperature, 1.0)
    assert loss(wanted, wanted, None).item() == pytest.approx(0, abs=1e-4)
    assert loss(got, wanted, None).item() >= -1e-4
    of_probabilities = loss(got.softmax(1), wanted.softmax(1), None).item()
    assert of_probabilities == pytest.approx(loss(got, wanted, None).item(), rel=1e-2, abs=1e-3)


def test_without_class_labels_alpha_does_not_matter_and_with_them_it_does():
    torch.manual_seed(0)
    got, wanted, label = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    half, whole = DistillationLoss(alpha=0.5), DistillationLoss(alpha=1.0)
    assert half(got, wanted, None) == whole(got, wanted, None)
    assert whole(got, wanted, label) == whole(got, wanted, None)
    mixed = 0.5 * whole(got, wanted, None) + 0.5 * nn.functional.cross_entropy(got, label)
    assert half(got, wanted, label).item() == pytest.approx(mixed.item())
    segmented = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    mixed = 0.5 * relative_distance(*segmented) + 0.5 * nn.functional.cross_entropy(*segmented[::2])
    assert half(*segmented).item() == pytest.approx(mixed.item())


maps = arrays_of(np.float32, (2, 3, 4, 4), elements=st.floats(-4, 4, width=32))


@settings(max_examples=60, deadline=None)
@given(one=maps, other=maps, scale=st.floats(0.1, 10))
def test_attention_is_between_0_and_2_and_does_not_see_the_size(one, other, scale):
    got, wanted = torch.from_numpy(one), torch.from_numpy(other)
    distance = attention_distance(got, wanted, 1).item()
    assert 0 <= distance <= 2 + 1e-5
    if min(got.square().sum((1, 2, 3)).min(), wanted.square().sum((1, 2, 3)).min()) > 1e-2:
        assert attention_distance(got * scale, wanted, 1).item() == pytest.approx(distance, abs=1e-4)
        assert attention_distance(got, got * scale, 1).item() == pytest.approx(0, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(one=maps, other=maps, scale=st.floats(0.1, 10))
def test_the_relative_distance_does_not_depend_on_the_unit(one, other, scale):
    got, wanted = torch.from_numpy(one), torch.from_numpy(other)
    if wanted.square().mean() > 1e-3:
        ratio = energy_ratio(got, wanted).item()
        assert energy_ratio(got * scale, wanted * scale).item() == pytest.approx(ratio, rel=1e-3)
        assert energy_ratio(wanted, wanted).item() == 0
