"""NNCF's ways for OpenVINO on networks that were trained, run by OpenVINO."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import Encoder, Vit, digits, noise, trained_task
from onnx import TensorProto, helper
from steps import context_of, convert_graph, converted_of, fresh
from torch import nn

from edgekit.artifact import Converted
from edgekit.compress.quantization.openvino_ways import WAYS
from edgekit.compress.quantization.settings import Settings
from edgekit.result import Quality
from edgekit.runtimes.float_graph import float_graph
from edgekit.runtimes.openvino_kernels import kernels, left_in_float
from edgekit.signal import snr_db

WAY = {way.name: way for way in WAYS}


@pytest.fixture(scope="module")
def cnn(tiny_cnn, tiny_graph, tmp_path_factory):
    return prepared(tiny_cnn, tiny_graph, tmp_path_factory.mktemp("cnn"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    task = trained_task(Vit(48), epochs=3)
    return prepared(
        task, float_graph(task.model, task, opset=20, ir_version=10)[0], tmp_path_factory.mktemp("vit")
    )


def prepared(task, graph, folder):
    converted = convert_graph(task, graph, "openvino", folder)
    return task, converted, context_of(task, graph, folder)


def make(case, name, **settings):
    task, converted, context = case
    asked = Settings(**settings)
    assert WAY[name].why_not(converted, asked, context) == ""
    return WAY[name].make(converted, asked, task, context, fresh(context.folder))


def answers(artifact, **more):
    """The scores of a digits network for 100 digits that it never saw."""
    run = artifact.open(**more)
    return np.concatenate([run({"x": image[None]})[0] for image in digits()[0][:100]])


def closeness(case, artifact):
    return snr_db([answers(case[1].artifact)], [answers(artifact)])


@pytest.mark.parametrize(
    ("settings", "least_db"),
    [
        ({}, 34),  # NNCF's own way of taking ranges gives 24
        ({"ranges": "percentile"}, 34),
        ({"ranges": "entropy"}, 34),
        ({"bias_correction": "fast"}, 5),  # it corrects each layer as if those before it were exact
        ({"bias_correction": "none"}, 30),
        ({"samples": 8}, 18),
    ],
    ids=str,
)
def test_static_int8_runs_in_integers_and_keeps_the_answers(cnn, settings, least_db):
    artifact = make(cnn, "nncf", **settings)
    assert left_in_float(artifact) == 0
    assert closeness(cnn, artifact) > least_db
    weights = [one.files[1].stat().st_size for one in (cnn[1].artifact, artifact)]
    assert weights[0] > 3.5 * weights[1]


def test_every_setting_changes_what_is_made(cnn):
    asked = [{}, {"ranges": "percentile"}, {"ranges": "entropy"}, {"bias_correction": "none"}, {"samples": 4}]
    assert len({make(cnn, "nncf", **settings).digest() for settings in asked}) == len(asked)


def test_equal_settings_give_equal_bytes(cnn, vit):
    for case, name, settings in (
        (cnn, "nncf", {}),
        (vit, "nncf-weight-only", {"weights": "int4", "samples": 8}),
    ):
        assert make(case, name, **settings).digest() == make(case, name, **settings).digest()


def test_the_reference_computes_in_float_what_is_quantized(cnn):
    artifact = make(cnn, "nncf")
    exact = replace(artifact, options={"reference": True})
    assert left_in_float(exact) == len(kernels(artifact))
    whole, rounded = answers(artifact, reference=True), answers(artifact)
    assert not np.array_equal(whole, rounded)
    assert snr_db([whole], [rounded]) > 25


def test_a_transformer_is_smoothed_as_asked(vit):
    asked = [{}, {"smooth_quant": 0.0}, {"smooth_quant": 0.5}]
    made = [make(vit, "nncf", **settings) for settings in asked]
    assert len({artifact.digest() for artifact in made}) == 3
    for artifact in made:
        assert left_in_float(artifact) == 0
        assert closeness(vit, artifact) > 15


class Bright(nn.Module):
    """Large inputs times equal weights: all that a sum of two products can hold in 16 bits, twice over."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(16, 16, 3)
        nn.init.constant_(self.body.weight, 0.5)

    def forward(self, x):
        return self.body(x).relu()


def test_7_bit_weights_are_right_without_vnni(tmp_path):
    """In 8 bits the sums of two products saturate in 16, as int8 kernels before VNNI add them up."""
    calls = [(noise(1, 16, 8, 8, seed=seed).clip(-1, 1) / 4 + 0.75,) for seed in range(8)]
    task, converted = converted_of(Bright(), calls[0], "openvino", tmp_path, calls=calls)
    context = context_of(task, converted.graph, tmp_path)
    call = {"x": calls[0][0]}
    lost = {}
    for narrow in (True, False):
        artifact = make((task, converted, replace(context, reduce_range=narrow)), "nncf")
        artifact.write_record()
        lost[narrow] = snr_db(artifact.open(reference=True)(call), [answer_without_vnni(artifact, call)])
    assert lost[True] > 35
    assert lost[False] < 20


def answer_without_vnni(artifact, call):
    """The first output as a CPU with AVX2 and no better gives it."""
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from edgekit.artifact import read_artifact\n"
        "run = read_artifact(Path(sys.argv[1])).open()\n"
        "np.save(sys.argv[2] + '/y.npy', run({'x': np.load(sys.argv[2] + '/x.npy')})[0])"
    )
    folder = artifact.path.parent
    np.save(folder / "x.npy", call["x"])
    command = [sys.executable, "-c", code, str(folder), str(folder)]
    subprocess.run(command, check=True, env=dict(os.environ, ONEDNN_MAX_CPU_ISA="AVX2"), timeout=300)
    return np.load(folder / "y.npy")


def test_layers_are_put_back_until_the_limit_holds(cnn):
    """The limit is what the quantized network loses in decibels, halved; top-1 would hardly tell."""
    task, converted, context = cnn
    calls = context.calls[:16]
    expected = [converted.artifact.open()(call)[0] for call in calls]

    def measure(run):
        lost = 10 ** (-snr_db(expected, [run(call)[0] for call in calls]) / 10)
        return Quality(kind="signal-to-noise", score=None, drop=lost)

    free = make(cnn, "nncf")
    limit = measure(free.open()).drop / 2
    tight = replace(context, measure=measure, max_drop=limit)
    held = make((task, converted, tight), "nncf", revert=True)
    assert measure(held.open()).drop <= limit
    assert 0 < left_in_float(held) < len(kernels(held))
    loose = replace(context, measure=measure, max_drop=1.0)
    assert left_in_float(make((task, converted, loose), "nncf", revert=True)) == 0


def test_weights_in_int8_are_small_and_compute_in_float(cnn):
    artifact = make(cnn, "nncf-weight-only")
    assert closeness(cnn, artifact) > 30
    assert left_in_float(artifact) == len(kernels(artifact))
    weights = [one.files[1].stat().st_size for one in (cnn[1].artifact, artifact)]
    assert weights[0] > 3.5 * weights[1]


def test_activations_rounded_as_they_come_change_the_answers_a_little(vit):
    plain, dynamic = make(vit, "nncf-weight-only"), make(vit, "nncf-dynamic")
    assert plain.path.read_bytes() == dynamic.path.read_bytes()
    assert dynamic.options == {"dynamic_group": 128}
    floats, rounded = answers(plain), answers(dynamic)
    assert not np.array_equal(floats, rounded)
    assert snr_db([floats], [rounded]) > 25


@pytest.mark.parametrize("group_size", [16, 64])
def test_int4_weights(vit, group_size):
    """Of 48 and 192 inputs, which not every group size divides."""
    artifact = make(vit, "nncf-weight-only", weights="int4", group_size=group_size, samples=8)
    int8 = make(vit, "nncf-weight-only")
    assert artifact.files[1].stat().st_size < 0.75 * int8.files[1].stat().st_size
    assert closeness(vit, artifact) > 10


def test_calibration_makes_int4_better(vit):
    task, converted, context = vit
    blind = make((task, converted, replace(context, calls=())), "nncf-weight-only", weights="int4")
    assert closeness(vit, make(vit, "nncf-weight-only", weights="int4")) > closeness(vit, blind) + 3


def test_of_int4_and_int8_as_much_int8_as_the_size_allows(vit):
    task, converted, context = vit
    free = {"max_drop": None, "max_class_drop": None}
    most = make((task, converted, replace(context, **free)), "nncf-weight-only", weights="int4")
    least = make(vit, "nncf-weight-only")
    between = (most.size_bytes + least.size_bytes) // 2
    limited = make(
        (task, converted, replace(context, **free, most_bytes=between)), "nncf-weight-only", weights="int4"
    )
    assert most.size_bytes < limited.size_bytes <= between
    assert closeness(vit, most) < closeness(vit, limited) < closeness(vit, least)


def test_of_int4_as_much_as_the_quality_allows(vit):
    task, converted, context = vit
    measured = []

    def measure(run):
        """Lost 1 % for each point that the scores are off, whatever the answers are."""
        found = np.concatenate([run({"x": image[None]})[0] for image in digits()[0][:100]])
        measured.append(10 ** (-snr_db([answers(converted.artifact)], [found]) / 20))
        return Quality(kind="accuracy", score=1 - measured[-1], drop=measured[-1])

    limits = replace(context, measure=measure, max_drop=1.0)
    all_int4 = make((task, converted, limits), "nncf-weight-only", weights="int4")
    lost_by_all = max(measured)
    limits = replace(context, measure=measure, max_drop=0.6 * lost_by_all)
    some = make((task, converted, limits), "nncf-weight-only", weights="int4")
    assert some.size_bytes > all_int4.size_bytes
    assert measure(some.open()).drop <= 0.6 * lost_by_all


def test_a_text_encoder_is_quantized_by_every_way(tmp_path):
    """Its inputs are numbers of tokens, and its embedding is a table."""
    calls = [(np.random.default_rng(seed).integers(0, 100, (1, 12)),) for seed in range(16)]
    task, converted = converted_of(Encoder(), calls[0], "openvino", tmp_path, calls=calls)
    case = (task, converted, context_of(task, converted.graph, tmp_path))
    expected = converted.artifact.open()({"x": calls[0][0]})
    for name in ("nncf", "nncf-dynamic", "nncf-weight-only"):
        found = make(case, name).open()({"x": calls[0][0]})
        assert snr_db(expected, found) > 15, name


class Clip(nn.Module):
    def forward(self, x):
        return x.clip(0, 1) * 2


@pytest.fixture(scope="module")
def weightless(tmp_path_factory):
    place = tmp_path_factory.mktemp("weightless")
    calls = [(noise(1, 3, 8, 8),)] * 4
    task, converted = converted_of(Clip(), calls[0], "openvino", place, calls=calls)
    return task, converted, context_of(task, converted.graph, place)


@pytest.mark.parametrize(
    ("name", "settings", "changes", "line"),
    [
        ("nncf", {"weights": "int4"}, {}, "int4 weights need method weight-only"),
        ("nncf", {"activations": "int16"}, {}, "OpenVINO has no int16 activations"),
        ("nncf-dynamic", {"activations": "int16"}, {}, "OpenVINO has no int16 activations"),
        ("nncf", {}, {"calls": ()}, "static int8 needs calibration data"),
        ("nncf", {"revert": True}, {"max_drop": None}, "revert needs a limit of quality, and the budget names"
        " none"),
        ("nncf-weight-only", {"revert": True}, {}, "revert needs method static"),
        ("nncf", {"smooth_quant": 0.5}, {}, "NNCF smooths transformers only, and this network has no"
        " attention"),
        ("nncf", {"smooth_quant": 0.0}, {}, ""),
    ],
)  # fmt: skip
def test_what_a_way_has_not_it_says(cnn, name, settings, changes, line):
    _, converted, context = cnn
    assert WAY[name].why_not(converted, Settings(**settings), replace(context, **changes)) == line


@pytest.mark.parametrize("name", ["nncf", "nncf-dynamic", "nncf-weight-only"])
def test_a_network_without_weights_is_refused(weightless, name):
    _, converted, context = weightless
    assert WAY[name].why_not(converted, Settings(), context) in (
        "no convolution or matrix product to quantize",
        "OpenVINO quantizes the inputs of matrix products only as they come, and none here has weights",
    )


@pytest.mark.parametrize(
    ("name", "settings"), [("nncf-dynamic", {}), ("nncf-weight-only", {"weights": "int4"})]
)
def test_convolutions_alone_have_no_dynamic_int8_and_no_int4(tmp_path, cnn, name, settings):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 1, 1, 1], [1.0] * 4)
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 4, 4]) for n, c in (("x", 1), ("y", 4))
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [weight]))
    onnx.save(model, tmp_path / "conv.onnx")
    converted = Converted(graph=tmp_path / "conv.onnx", artifact=cnn[1].artifact)
    assert "matrix products" in WAY[name].why_not(converted, Settings(**settings), cnn[2])
