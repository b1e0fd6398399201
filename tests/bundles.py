"""Small networks with real weights, packed to bundles: for the tests of what happens to a bundle."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle.pack import Contents, write_bundle
from edgekit.cost import Cost, Figure
from edgekit.runtimes import tensorrt
from edgekit.runtimes.onnxruntime import write
from edgekit.target import load_target

ARTIFACTS = tempfile.TemporaryDirectory(prefix="edgekit-tests-")
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def weights(**shapes):
    random = np.random.default_rng(0)
    return [
        numpy_helper.from_array((random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def model_of(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def image_network():
    """A convolution network with a free batch axis."""
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w2"], ["logits"]),
    ]
    return model_of(
        nodes,
        [value("image", FLOAT, ["batch", 3, 16, 16])],
        [value("logits", FLOAT, ["batch", 10])],
        weights(w1=(16, 3, 3, 3), w2=(16, 10)),
    )


def image_calls(count=12):
    random = np.random.default_rng(1)
    return [{"image": random.random((1, 3, 16, 16), np.float32)} for _ in range(count)]


def voice_network():
    """A recurrent step: sound of free length, a state, an int64 scalar; three outputs, one of integers."""
    nodes = [
        helper.make_node("MatMul", ["sound", "w1"], ["a"]),
        helper.make_node("ReduceMean", ["a"], ["b"], keepdims=0, noop_with_empty_axes=0),
        helper.make_node("Cast", ["rate"], ["r"], to=FLOAT),
        helper.make_node("Div", ["b", "r"], ["c"]),
        helper.make_node("Add", ["state", "c"], ["d"]),
        helper.make_node("Tanh", ["d"], ["new_state"]),
        helper.make_node("MatMul", ["new_state", "w2"], ["e"]),
        helper.make_node("Sigmoid", ["e"], ["speech"]),
        helper.make_node("ArgMax", ["new_state"], ["loudest"], axis=1),
    ]
    return model_of(
        nodes,
        [value("sound", FLOAT, ["steps", 8]), value("state", FLOAT, [1, 4]), value("rate", INT64, [])],
        [
            value("speech", FLOAT, [1, 1]),
            value("new_state", FLOAT, [1, 4]),
            value("loudest", INT64, [1, 1]),
        ],
        weights(w1=(8, 4), w2=(4, 1)),
    )


def voice_calls():
    random = np.random.default_rng(2)
    return [
        {
            "sound": random.standard_normal((steps, 8), np.float32),
            "state": random.standard_normal((1, 4), np.float32),
            "rate": np.asarray(16000, np.int64),
        }
        for steps in (5, 9, 30)
    ]


def predicted(milliseconds):
    return Figure(
        value=milliseconds,
        how="predicted",
        source="the cost model",
        low=milliseconds / 2,
        high=milliseconds * 2,
    )


def artifact_of(model):
    """An ONNX graph as an artifact of onnxruntime."""
    return write(model, Path(tempfile.mkdtemp(dir=ARTIFACTS.name)))


def contents_of(model=None, calls=None, *, name="tiny", target="rpi4", **more):
    usual = {
        "threads": 1,
        "recipe": {"steps": [{"step": "quantize"}]},
        "cost": Cost(
            latency_p90_ms=predicted(12.0),
            size_mb=Figure(value=0.003, how="measured", source="bytes on disk"),
        ),
        "versions": {"onnx": onnx.__version__},
    }
    model = image_network() if model is None else model
    return Contents(
        name=name,
        artifact=more.pop("artifact", None) or artifact_of(model),
        graph=model,
        calls=image_calls() if calls is None else calls,
        target=load_target(target) if isinstance(target, str) else target,
        **{**usual, **more},
    )


def as_tensorrt():
    """What makes a bundle one for TensorRT."""
    artifact = tensorrt.write(image_network(), Path(tempfile.mkdtemp(dir=ARTIFACTS.name)), "int8")
    return {"target": "jetson-orin-nano", "artifact": artifact}


def packed(folder: Path, *arguments, **more) -> Path:
    """A bundle in a new folder."""
    folder.mkdir(parents=True)
    write_bundle(folder, contents_of(*arguments, **more))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def run_edgekit(*arguments, **more) -> subprocess.CompletedProcess:
    """The command line, in a process of its own."""
    command = [sys.executable, "-m", "edgekit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)
