"""Speed, size and quality of every way of quantizing, in every runtime, on this machine.

    python benchmarks/int8.py [--network NAME ...] [--runtime NAME ...]

For each network and runtime one alternating run, batch 1, one thread: all ratios are to the same runtime's
float artifact. The ways that need fine-tuning are in benchmarks/matrix.py.

digits: the ResNet-20 of examples/; quality is accuracy on the 450 test digits. mobilenetv2: ImageNet weights
and a head fitted on crops of photographs; quality is how often the answer on 240 other crops is that of the
float network. vit: the small vision transformer of benchmarks/networks; accuracy as for digits. resnet18:
random weights at 224x224, to be timed; quality is agreement on the calibration crops.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import RUNTIMES, RuntimeName
from edgekit.compress.quantize import Quantize
from edgekit.errors import EdgekitError
from edgekit.plan.recipe import Recipe
from edgekit.progress import Progress
from edgekit.realise import artifact, converted, float_graph
from edgekit.result import Route
from edgekit.runtimes.convert import installed
from edgekit.target import load_target
from edgekit.task.evaluate import make_predict
from edgekit.task.load import Given, load_task
from edgekit.workshop import Workshop, open_shop

HERE = Path(__file__).parent
NETWORKS = {
    "digits": HERE.parent / "examples" / "digits" / "task.py",
    "mobilenetv2": HERE / "networks" / "mobilenetv2.py",
    "vit": HERE / "networks" / "vit.py",
    "resnet18": HERE / "networks" / "resnet18.py",
}
MOST_LOST = 0.03  # of quality: the bar for the MobileNetV2's agreement


def main() -> None:
    """Print one table for each network and runtime, each from a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--network", action="append", choices=NETWORKS, help="all when none is named")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="all when none is named")
    given = parser.parse_args()
    pairs = list(product(given.network or NETWORKS, given.runtime or RUNTIMES))
    if len(pairs) == 1:
        print_table(*pairs[0])
        return
    for name, runtime in pairs:  # a library that crashes takes its own table with it, no more
        command = [sys.executable, __file__, "--network", name, "--runtime", runtime]
        subprocess.run(command, check=False)


def print_table(name: str, runtime: RuntimeName) -> None:
    """One line for each way: times faster and smaller than float, quality lost, layers left in float."""
    print(f"\n{name}, {runtime}, batch 1, 1 thread")
    try:
        routes = routes_of(name, runtime)
    except EdgekitError as error:
        print(f"  {error}")
        return
    print(f"  {'':18}{'faster':>8}{'smaller':>9}{'lost':>9}{'in float':>10}")
    for route in routes:
        print(f"{'*' if route.chosen else ' ':>2}{route.name:18}{figures(route)}  {route.reason}")


def figures(route: Route) -> str:
    """The figures of one way, blank where there are none."""
    texts = [
        "" if route.latency_ratio is None else f"{route.latency_ratio:.2f}x",
        "" if route.size_ratio is None else f"{route.size_ratio:.2f}x",
        "" if route.drop is None else f"{route.drop:.2%}",
        "" if route.left_in_float is None else str(route.left_in_float),
    ]
    return "".join(f"{text:>{width}}" for text, width in zip(texts, (8, 9, 9, 10), strict=True))


def routes_of(name: str, runtime: RuntimeName) -> tuple[Route, ...]:
    """All ways of one runtime on one network, the best one marked."""
    if lacking := installed(runtime):
        raise lacking
    task = load_task(str(NETWORKS[name]), Given())
    target = load_target("x86-cpu").with_limits({"drop": MOST_LOST}, "this benchmark")
    shop = replace(open_shop(task, target, Progress(), use_cache=False), runtime=runtime, threads=1)
    graph = float_graph(shop, Recipe())
    shop = replace(shop, baseline=graph)
    start = converted(shop, graph, Recipe())
    shop = replace(shop, floats=start.artifact)
    if name == "mobilenetv2":
        shop = replace(shop, task=replace(task, evaluate=agreement(shop)))
    return artifact(shop, graph, start, Recipe(steps=(Quantize(),))).routes


def agreement(shop: Workshop) -> Callable[[Any], float]:
    """Scores an artifact by how often its first class on the test crops is that of the float artifact."""
    evaluate = shop.task.evaluate
    if evaluate is None or shop.floats is None:
        raise ValueError("there is nothing to compare")
    seen: list[np.ndarray] = []

    def remember(images: np.ndarray) -> np.ndarray:
        seen.append(np.asarray(images))
        return np.zeros((len(images), 1), np.float32)

    evaluate(remember)
    expected = np.asarray(make_predict(shop.floats.open(), shop.task)(seen[0])).argmax(1)
    return lambda predict: float((np.asarray(predict(seen[0])).argmax(1) == expected).mean())


if __name__ == "__main__":
    main()
