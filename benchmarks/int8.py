"""Speed, quality and size of every int8 route on the two example networks, on this machine.

    python benchmarks/int8.py [digits] [mobilenetv2]

One alternating run for each network, batch 1, one thread. The quality of the digits network is its accuracy
on the 450 test digits. The MobileNetV2 gives features: a logistic head is fitted on the float features of 400
crops and tried on 400 others; what counts is how often its answer stays the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx

from edgekit.alternate import Compared, compare_artifacts
from edgekit.compress.int8_routes import ROUTES
from edgekit.compress.quantize import Quantize, spread
from edgekit.errors import EdgekitError
from edgekit.graph.fusion import count_float_nodes, optimised
from edgekit.progress import Progress
from edgekit.runtimes.onnxruntime import convert
from edgekit.task.load import Given, load_task
from edgekit.task.record import Task
from edgekit.verify import run_onnx

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLES = Quantize().samples
Quality = Callable[[onnx.ModelProto], str]


def main() -> None:
    """Print one table for each network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("networks", nargs="*", choices=[[], *QUALITIES], help="all when none is named")
    for name in parser.parse_args().networks or QUALITIES:
        source = EXAMPLES / name / "task.py"
        with Progress().stage(f"convert {name}"):
            task = load_task(str(source), Given())
            model, _ = convert(task.model, task, opset=20, ir_version=10)
        calls = calls_of(task)
        print(f"\n{name}, {len(calls)} calibration calls at most {SAMPLES} used, batch 1, 1 thread")
        print_table(compare(model, calls), QUALITIES[name](load_source(source), model))


def calls_of(task: Task) -> list[dict[str, np.ndarray]]:
    """The calibration calls by input name."""
    names = [spec.name for spec in task.inputs]
    return [dict(zip(names, arrays, strict=True)) for arrays in task.calibration or ()]


def compare(
    model: onnx.ModelProto, calls: Sequence[dict[str, np.ndarray]]
) -> dict[str, tuple[onnx.ModelProto, Compared]]:
    """The float graph and every int8 graph that a route gives, each with its speed beside the others."""
    graphs = {"float32": model}
    for name, route in ROUTES.items():
        try:
            with Progress().stage(f"quantize, {name}"):
                graphs[name] = route(model, spread(calls, SAMPLES), reduce_range=False)
        except (EdgekitError, RuntimeError) as error:
            print(f"{name} fails: {error}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in graphs}
        for name, path in paths.items():
            onnx.save(graphs[name], path)
        compared = compare_artifacts(paths, calls[:8], threads=1)
    return {name: (graphs[name], compared[name]) for name in graphs}


def print_table(rows: dict[str, tuple[onnx.ModelProto, Compared]], quality: Quality) -> None:
    """One line for each graph; ratios are float32's figure over the graph's own."""
    print(f"{'':12}{'p50 ms':>9}{'wall':>8}{'CPU':>8}{'size':>8}{'in float':>9}  quality")
    whole = next(iter(rows.values()))[0].ByteSize()
    for name, (graph, speed) in rows.items():
        wall, cpu, size = 1 / speed.ratio_to_first, 1 / speed.cpu_ratio_to_first, whole / graph.ByteSize()
        figures = (
            f"{speed.p50_ms:9.3f}{wall:7.2f}x{cpu:7.2f}x{size:7.2f}x{count_float_nodes(optimised(graph)):9}"
        )
        print(f"{name:12}{figures}  {quality(graph)}")


def digits_quality(source: ModuleType, _model: onnx.ModelProto) -> Quality:
    """Accuracy on the test digits."""

    def quality(graph: onnx.ModelProto) -> str:
        def predict(images: np.ndarray) -> np.ndarray:
            return features(graph, np.asarray(images))

        return f"accuracy {source.evaluate(predict)['accuracy']:.2%}"

    return quality


def mobilenetv2_quality(source: ModuleType, model: onnx.ModelProto) -> Quality:
    """Agreement of a logistic head on held-out crops, and its own accuracy."""
    from sklearn.linear_model import LogisticRegression

    crops, labels = zip(*source.crops(400, seed=1), strict=True)
    head = LogisticRegression(max_iter=2000).fit(features(model, np.stack(crops)), labels)
    held_out, truth = zip(*source.crops(400, seed=2), strict=True)
    expected = head.predict(features(model, np.stack(held_out)))

    def quality(graph: onnx.ModelProto) -> str:
        answers = head.predict(features(graph, np.stack(held_out)))
        return f"agreement {np.mean(answers == expected):.2%}, accuracy {np.mean(answers == truth):.2%}"

    return quality


def features(graph: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The outputs for each image in calls of one, as deployed."""
    name = graph.graph.input[0].name
    outputs = run_onnx(graph, [{name: images[index : index + 1]} for index in range(len(images))])
    return np.concatenate([arrays[0] for arrays in outputs])


def load_source(path: Path) -> ModuleType:
    """The example's own functions; it finds the files beside it as it does for edgekit."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = spec_from_file_location(f"example_{path.parent.name}", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


QUALITIES = {"digits": digits_quality, "mobilenetv2": mobilenetv2_quality}

if __name__ == "__main__":
    main()
