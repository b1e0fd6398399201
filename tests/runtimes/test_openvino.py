"""From float graphs to OpenVINO's IR: it runs, it does the same, and what it cannot do it says."""

import numpy as np
import onnx
import pytest
from networks import (
    DsCnn,
    Encoder,
    ONet,
    PNet,
    Recurrent,
    Stateful,
    TinyCnn,
    UNet,
    Vit,
    calls_of,
    noise,
    task_of,
)
from onnx import TensorProto, helper
from steps import convert_graph, converted_of, fresh
from torch import nn

from edgekit.errors import BadInput
from edgekit.runtimes.convert import convert, half
from edgekit.runtimes.openvino import read, refuse_fixed
from edgekit.runtimes.openvino_kernels import kernels, left_in_float
from edgekit.signal import snr_db
from edgekit.task.record import InputSpec
from edgekit.verify import FLOAT_FLOOR_DB, check_artifact

STATE = np.zeros((2, 1, 16), np.float32)
NETWORKS = {
    "cnn": (TinyCnn(), [noise(1, 1, 16, 16)], {}),
    "batches": (TinyCnn(), [noise(2, 1, 16, 16)], {"x": {0: "batch"}}),
    "keywords": (DsCnn(), [noise(1, 1, 49, 10)], {}),
    "faces": (PNet(), [noise(1, 3, 40, 48)], {"x": {2: "height", 3: "width"}}),
    "landmarks": (ONet(), [noise(1, 3, 24, 24)], {}),
    "unet": (UNet(), [noise(1, 3, 32, 32)], {}),
    "vit": (Vit(), [noise(1, 1, 16, 16)], {}),
    "lstm": (Recurrent(nn.LSTM), [noise(1, 20, 16)], {"x": {1: "frames"}}),
    "gru": (Recurrent(nn.GRU), [noise(1, 20, 16)], {}),
    "state": (Stateful(), [noise(1, 64), STATE], {}),
    "text": (Encoder(), [np.arange(12)[None] % 100], {}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def made(request, tmp_path_factory):
    network, example, dynamic = NETWORKS[request.param]
    place = tmp_path_factory.mktemp(request.param)
    return *converted_of(network, example, "openvino", place, dynamic=dynamic), place


def test_the_ir_does_what_the_graph_does(made):
    task, converted, _ = made
    parity = check_artifact(
        "onnx -> openvino", onnx.load(converted.graph), converted.artifact, calls_of(task, 4), FLOAT_FLOOR_DB
    )
    assert parity.snr_db > 80


def test_equal_graphs_give_equal_bytes(made):
    task, converted, place = made
    graph = onnx.load(converted.graph)
    again = convert("openvino", graph, None, task, fresh(place), [])
    assert again.digest() == converted.artifact.digest()
    for path in again.files:
        assert str(place.parent).encode() not in path.read_bytes()


def test_half_precision_keeps_inputs_and_outputs_and_most_of_the_signal(made):
    task, converted, place = made
    call = calls_of(task, 1)[0]
    whole = converted.artifact.open()(call)
    for precision, floor_db in (("float16", 45), ("bfloat16", 20)):
        artifact = half(converted, precision, fresh(place))
        outputs = artifact.open()(call)
        assert [(each.dtype, each.shape) for each in outputs] == [(each.dtype, each.shape) for each in whole]
        assert min(map(snr_db, whole, outputs)) > floor_db
        weights = [one.files[1].stat().st_size for one in (artifact, converted.artifact)]
        assert weights[0] < 0.6 * weights[1] if precision == "float16" else weights[0] == weights[1]


def test_dynamic_axes_stay_dynamic(tmp_path):
    _, converted = converted_of(
        TinyCnn(), [noise(2, 1, 16, 16)], "openvino", tmp_path, dynamic={"x": {0: "batch"}}
    )
    run = converted.artifact.open()
    both = noise(5, 1, 16, 16)
    alone = np.concatenate([run({"x": image[None]})[0] for image in both])
    np.testing.assert_allclose(run({"x": both})[0], alone, atol=1e-4)


def test_an_axis_that_would_be_fixed_is_refused():
    model = read(graph_of(helper.make_node("Neg", ["x"], ["y"]), shape=[1, 3]))
    asked = InputSpec(name="x", shape=("batch", 3), dtype="float32")
    with pytest.raises(BadInput, match=r"fixes axis 0 \(`batch`\) at 1; declare a fixed size") as caught:
        refuse_fixed(model, [asked])
    assert "--input-shape" in str(caught.value)


def test_64_bit_inputs_are_noted(tmp_path):
    network, example, _ = NETWORKS["text"]
    task = task_of(network, example)
    _, converted = converted_of(network, example, "openvino", tmp_path)
    notes = []
    convert("openvino", onnx.load(converted.graph), None, task, fresh(tmp_path), notes)
    assert notes == ["OpenVINO computes x in 32 bits; larger values are refused at run time"]
    with pytest.raises(BadInput, match="beyond 32 bits"):
        converted.artifact.open()({"x": np.full((1, 12), 2**33)})


def test_a_quantized_file_runs_in_integers(tmp_path):
    """Depthwise convolutions too: their weights reach them through a reshape that must be folded."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    task, converted = converted_of(DsCnn(), [noise(1, 1, 49, 10)], "openvino", tmp_path)

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.calls = iter(calls_of(task, 8))

        def get_next(self):
            return next(self.calls, None)

    path = tmp_path / "quantized.onnx"
    quantize_static(converted.graph, path, Reader(), per_channel=True, activation_type=QuantType.QUInt8)
    quantized = onnx.load(path)
    taken = convert_graph(task_of(quantized, task.example), quantized, "openvino", tmp_path).artifact
    found = kernels(taken)
    assert [name for name, kernel in found.items() if not kernel.lower().endswith("i8")] == []
    assert len(found) == 6
    check_artifact("qdq -> openvino", quantized, taken, calls_of(task, 4), 20)


def test_float_models_have_float_kernels(tmp_path):
    _, converted = converted_of(DsCnn(), [noise(1, 1, 49, 10)], "openvino", tmp_path)
    assert left_in_float(converted.artifact) == len(kernels(converted.artifact)) == 6


def graph_of(*nodes, shape, domains=(), weights=()):
    """A float graph from x to y; only the rank of y is said."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name, size in (("x", shape), ("y", None))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(weights))
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


SCALES = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 2, 2])
RNN_WEIGHTS = [
    helper.make_tensor(name, TensorProto.FLOAT, size, np.zeros(size))
    for name, size in (("w", [1, 2, 3]), ("r", [1, 2, 2]))
]


@pytest.mark.parametrize(
    ("graph", "line"),
    [
        (
            graph_of(helper.make_node("Det", ["x"], ["y"], name="loss/Det"), shape=[3, 3]),
            "node `loss/Det`: OpenVINO has no operator Det; take another runtime; onnxruntime runs it",
        ),
        (
            graph_of(
                helper.make_node("Odd", ["x"], ["h"], name="a/Odd", domain="com.acme"),
                helper.make_node("Det", ["h"], ["y"], name="b/Det"),
                shape=[3, 3],
                domains=["com.acme"],
            ),
            "node `b/Det`, node `a/Odd`: OpenVINO has no operator Det, Odd; take another runtime",
        ),
        (
            graph_of(
                helper.make_node(
                    "Resize",
                    ["x", "", "scales"],
                    ["y"],
                    name="up/Resize",
                    coordinate_transformation_mode="tf_crop_and_resize",
                ),
                shape=[1, 1, 4, 4],
                weights=[SCALES],
            ),
            "node `up/Resize`: OpenVINO refuses Resize: tf_crop_and_resize - this type of coordinate",
        ),
        (
            graph_of(
                helper.make_node(
                    "RNN", ["x", "w", "r"], ["y"], name="ear/RNN", hidden_size=2, activations=["Affine"]
                ),
                shape=[4, 1, 3],
                weights=RNN_WEIGHTS,
            ),
            "node `ear/RNN`: OpenVINO refuses RNNSequence: Unknown activation function: affine; take",
        ),
    ],
    ids=["no operator", "two operators", "an attribute", "the plugin"],
)
def test_what_openvino_cannot_do_is_said_in_one_line(graph, line):
    with pytest.raises(BadInput) as caught:
        read(graph)
    assert str(caught.value).startswith(line)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_other_precisions_are_refused(tmp_path):
    _, converted = converted_of(TinyCnn(), [noise(1, 1, 16, 16)], "openvino", tmp_path)
    with pytest.raises(BadInput, match="openvino has no float8; use float16 or bfloat16"):
        half(converted, "float8", fresh(tmp_path))
