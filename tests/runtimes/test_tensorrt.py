"""TensorRT's host half: the ONNX file, what is refused, and explicit int8. Nothing here runs TensorRT."""

from collections import Counter

import numpy as np
import onnx
import pytest
from bundles import model_of, value, weights
from networks import TinyCnn, UNet, Vit, calibrated, noise, task_of
from onnx import TensorProto, helper, numpy_helper
from steps import context_of, convert_graph, converted_of, fresh

from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.tensorrt_ways import WAYS
from edgekit.errors import BadInput
from edgekit.graph.prepare import opset_of
from edgekit.runtimes.tensorrt import NOT_RUN, convert, half
from edgekit.signal import snr_db
from edgekit.verify import run_onnx

FLOAT = TensorProto.FLOAT
NETWORKS = {
    "cnn": (lambda: calibrated(TinyCnn(), 1, 16, 16), (1, 1, 16, 16)),
    "unet": (lambda: calibrated(UNet(), 3, 16, 16), (1, 3, 16, 16)),
    "vit": (Vit, (1, 1, 16, 16)),
}
WAY = WAYS[0]


@pytest.fixture(scope="module", params=NETWORKS)
def made(request, tmp_path_factory):
    """A network: its task, what it was converted to, the context, and its int8 artifact."""
    network, shape = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    calls = [(noise(*shape, seed=seed),) for seed in range(16)]
    task, converted = converted_of(network(), calls[0], "tensorrt", folder, calls=calls)
    context = context_of(task, converted.graph, folder)
    assert WAY.why_not(converted, Settings(), context) == ""
    return task, converted, context, WAY.make(converted, Settings(), task, context, fresh(folder))


def outputs(graph, task):
    return [
        out for outs in run_onnx(graph, [task.named(call) for call in task.calibration[:4]]) for out in outs
    ]


def test_the_float_file_is_valid_and_gives_what_the_float_graph_gives(made):
    task, converted, _, _ = made
    written = onnx.load(converted.artifact.path)
    onnx.checker.check_model(written, full_check=True)
    assert snr_db(outputs(onnx.load(converted.graph), task), outputs(written, task)) > 100
    assert converted.artifact.options["precision"] == "fp32"


def test_it_is_written_for_the_oldest_tensorrt_that_has_its_operators(made):
    written = onnx.load(made[1].artifact.path)
    newer = {node.op_type for node in written.graph.node} & {"Gelu"}
    assert opset_of(written) == (20 if newer else 17)


def test_int8_is_symmetric_signed_and_explicit(made):
    graph = onnx.load(made[3].path).graph
    onnx.checker.check_model(onnx.load(made[3].path), full_check=True)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            scale, zero = (tensors[name] for name in node.input[1:])
            assert zero.dtype == np.int8
            assert not zero.any()
            assert zero.shape == scale.shape
            assert (scale > 0).all()
        if node.op_type in {"Conv", "ConvTranspose", "Gemm"}:
            pairs = [maker[name] for name in node.input[:2]]
            assert [pair.op_type for pair in pairs] == ["DequantizeLinear"] * 2
            assert tensors[pairs[0].input[1]].size == 1, "activations per tensor"
            assert tensors[pairs[1].input[1]].size > 1, "weights per channel"
            assert tensors[maker[pairs[1].input[0]].input[0]].dtype == np.float32, (
                "TensorRT 8 takes float ones"
            )
            assert all(name in tensors for name in node.input[2:]), "biases stay float"


def test_int8_keeps_the_quality_and_is_opened_as_int8(made):
    task, converted, context, artifact = made
    assert artifact.options["precision"] == "int8"
    assert snr_db(outputs(onnx.load(converted.graph), task), outputs(onnx.load(artifact.path), task)) > 20
    assert context.measure(artifact.open()).drop <= 0.07


def test_a_residual_sum_joins_its_convolution(made, request):
    graph = onnx.load(made[3].path).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    read = Counter(name for node in graph.node for name in node.input)
    sums = [node for node in graph.node if node.op_type == "Add" and all(n in maker for n in node.input)]
    joined = [n for n in sums if "Conv" in {maker[name] for name in n.input}]
    for node in joined:
        assert sorted(maker[name] for name in node.input) == ["Conv", "DequantizeLinear"]
        assert all(read[name] == 1 for name in node.input if maker[name] == "Conv")
    assert len(joined) == {"cnn": 1, "unet": 0, "vit": 0}[request.node.callspec.params["made"]]


@pytest.mark.parametrize("ranges", ["min-max", "percentile", "entropy"])
def test_two_runs_give_equal_files(made, ranges, tmp_path, capfd):
    task, converted, context, _ = made
    settings = Settings(ranges=ranges, samples=4)
    digests = {WAY.make(converted, settings, task, context, fresh(tmp_path)).digest() for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": "int4"}, "int8 weights with int8 activations only"),
        ({"activations": "int16"}, "int8 weights with int8 activations only"),
        ({"smooth_quant": 0.5}, "SmoothQuant"),
        ({"revert": True}, "no layer is put back"),
    ],
)
def test_settings_that_it_has_not_are_refused(made, settings, said):
    assert said in WAY.why_not(made[1], Settings(**settings), made[2])


def test_nothing_to_quantize_no_data_and_what_is_quantized_are_said(made, tmp_path):
    task, converted, context, artifact = made
    folder = fresh(tmp_path)
    context_without = context_of(task_of(task.model, task.example), None, folder)
    assert WAY.why_not(converted, Settings(), context_without) == "static int8 needs calibration data"
    again = convert_graph(task, onnx.load(artifact.path), "tensorrt", folder)
    assert again.artifact.options["precision"] == "int8"
    assert WAY.why_not(again, Settings(), context) == "it is quantized already and is left alone"
    relu = model_of(
        [helper.make_node("Relu", ["x"], ["y"])], [value("x", FLOAT, [1, 4])], [value("y", FLOAT, [1, 4])]
    )
    plain = convert_graph(task_of(relu, [noise(1, 4)]), relu, "tensorrt", folder)
    assert "no convolution" in WAY.why_not(plain, Settings(), context)


def test_half_precision_is_the_same_graph_and_another_engine(made, tmp_path):
    found = half(made[1], "float16", tmp_path)
    assert found.options["precision"] == "fp16"
    assert found.path.read_bytes() == made[1].artifact.path.read_bytes()
    with pytest.raises(BadInput, match="float16, not in bfloat16"):
        half(made[1], "bfloat16", tmp_path)


def network(node, *, shape=(1, 4), kind=FLOAT, out=(1, 4), opset=20):
    """A graph of one node between an input and an output."""
    model = model_of([node], [value("x", kind, shape)], [value("y", kind, out)], weights(w=(4, 4)))
    model.opset_import[0].version = opset
    return model


X = noise(1, 4)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            network(helper.make_node("Det", ["x"], ["y"], name="head/det"), shape=(4, 4), out=()),
            "TensorRT has no operator Det (node `head/det`)",
        ),
        (
            network(helper.make_node("Mine", ["x"], ["y"], domain="my.own")),
            "TensorRT has no operator Mine (node `y`)",
        ),
        (network(helper.make_node("Relu", ["x"], ["y"]), shape=("n", 4)), "axis 0 of input `x` is dynamic"),
        (network(helper.make_node("Relu", ["x"], ["y"]), out=("n", 4)), "axis 0 of output `y` is dynamic"),
        (network(helper.make_node("Neg", ["x"], ["y"]), kind=TensorProto.DOUBLE), "no float64 (input `x`)"),
        (
            network(helper.make_node("LayerNormalization", ["x", "w", "w"], ["y", "mean"], name="norm")),
            "only the first output of LayerNormalization (node `norm`)",
        ),
        (network(helper.make_node("HardSwish", ["x"], ["y"]), opset=24), None),
    ],
)
def test_what_tensorrt_has_not_is_refused_in_one_line(model, said, tmp_path):
    notes = []
    task = task_of(model, [X])
    if said is None:  # a newer operator set, that says the same in an older one
        assert opset_of(onnx.load(convert(model, None, task, tmp_path, notes).path)) <= 20
        assert notes[-1] == NOT_RUN
        return
    with pytest.raises(BadInput) as caught:
        convert(model, None, task, tmp_path, notes)
    line = str(caught.value)
    assert said in line
    assert line.startswith("the model of net: ")
    assert len(line.splitlines()) == 1
    assert "; " in line, "and what to do"


def test_unsigned_quantization_of_others_is_refused(tmp_path):
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quant"),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]  # fmt: skip
    tensors = [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(128), "z")]
    model = model_of(nodes, [value("x", FLOAT, [1, 4])], [value("y", FLOAT, [1, 4])], tensors)
    with pytest.raises(BadInput, match="`quant` quantizes to uint8 with a zero point"):
        convert(model, None, task_of(model, [X]), tmp_path, [])


def test_an_artifact_says_that_tensorrt_was_not_run(tmp_path):
    model = network(helper.make_node("Relu", ["x"], ["y"]))
    notes = []
    artifact = convert(model, None, task_of(model, [X]), tmp_path, notes)
    assert any("not yet run on hardware" in note for note in notes)
    assert np.array_equal(artifact.open()({"x": X})[0], np.maximum(X, 0))
