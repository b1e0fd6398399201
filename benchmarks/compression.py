"""What structural compression is worth on this machine: speed, size, quality beside the same runtime's float.

    python benchmarks/compression.py [--network NAME ...] [--runtime NAME ...]

For each network and runtime one alternating run, batch 1, one thread: medians of per-round ratios to that
runtime's float artifact. digits and mobilenetv2-half are trained, quality is accuracy on 450 test digits;
resnet18 has random weights at 224x224, to be timed: it is not fine-tuned.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from edgekit.alternate import compare_artifacts
from edgekit.artifact import Artifact, RuntimeName
from edgekit.errors import EdgekitError
from edgekit.plan.recipe import Recipe, recipe_from_data
from edgekit.progress import Progress
from edgekit.realise import artifact, converted, float_graph
from edgekit.result import Quality
from edgekit.runtimes.convert import installed
from edgekit.target import load_target
from edgekit.task.load import Given, load_task
from edgekit.workshop import open_shop

HERE = Path(__file__).parent
RUNTIMES: tuple[RuntimeName, ...] = ("onnxruntime", "openvino", "tflite")
NETWORKS = {
    "digits": HERE.parent / "examples" / "digits" / "task.py",
    "mobilenetv2-half": HERE / "networks" / "mobilenetv2_half.py",
    "resnet18": HERE / "networks" / "resnet18.py",
}
INT8: dict[str, Any] = {"step": "quantize"}
NARROW: dict[str, Any] = {"step": "prune", "macs": 0.6, "round_to": 8}


def distill(epochs: int) -> dict[str, Any]:
    """Recover by the float network."""
    return {"step": "distill", "epochs": epochs}


RECIPES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "digits": {
        "float32": [],
        "int8": [INT8],
        "low rank": [{"step": "factorize"}, distill(4)],
        "low rank + int8": [{"step": "factorize"}, distill(4), INT8],
        "half the work": [{"step": "prune", "macs": 0.5}, distill(12)],
        "half the work + int8": [{"step": "prune", "macs": 0.5}, distill(12), INT8],
        "fewer blocks": [{"step": "depth", "blocks": 6}, distill(10)],
        "fewer blocks + int8": [{"step": "depth", "blocks": 6}, distill(10), INT8],
        "fewest blocks + int8": [{"step": "depth", "blocks": 7}, distill(20), INT8],
        "fewer blocks, narrower": [{"step": "depth", "blocks": 6}, NARROW, distill(20)],
        "fewer blocks, narrower + int8": [{"step": "depth", "blocks": 6}, NARROW, distill(20), INT8],
    },
    "mobilenetv2-half": {
        "float32": [],
        "int8": [INT8],
        "half the work": [{"step": "prune", "macs": 0.5}, distill(8)],
        "half the work + int8": [{"step": "prune", "macs": 0.5}, distill(8), INT8],
    },
    "resnet18": {
        "float32": [],
        "int8": [INT8],
        "half the work": [{"step": "prune", "macs": 0.5}],
        "half the work + int8": [{"step": "prune", "macs": 0.5}, INT8],
        "low rank": [{"step": "factorize", "method": "tucker", "rank": "ratio", "amount": 0.5}],
        "low rank + int8": [{"step": "factorize", "method": "tucker", "rank": "ratio", "amount": 0.5}, INT8],
    },
}


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
    for name, runtime in pairs:
        command = [sys.executable, __file__, "--network", name, "--runtime", runtime]
        subprocess.run(command, check=False)


def print_table(name: str, runtime: RuntimeName) -> None:
    """One line for each recipe: times faster and smaller than float, the quality."""
    print(f"\n{name}, {runtime}, batch 1, 1 thread", flush=True)
    if lacking := installed(runtime):
        print(f"  {lacking}")
        return
    made, calls = make_all(name, runtime)
    compared = compare_artifacts({key: art for key, (art, _) in made.items()}, calls, threads=1)
    first = next(iter(made.values()))[0].size_bytes
    print(f"  {'':32}{'faster':>8}{'smaller':>9}  quality")
    for key, (art, quality) in made.items():
        faster, smaller = 1 / compared[key].ratio_to_first, first / art.size_bytes
        score = "" if quality is None or quality.score is None else f"{quality.score:.2%} {quality.kind}"
        print(f"  {key:32}{faster:>7.2f}x{smaller:>8.2f}x  {score}", flush=True)


def make_all(
    name: str, runtime: RuntimeName
) -> tuple[dict[str, tuple[Artifact, Quality | None]], list[dict[str, Any]]]:
    """The artifacts of all recipes with their quality, and the calls to time them on."""
    task = load_task(str(NETWORKS[name]), Given())
    target = load_target("x86-cpu").with_limits({"drop": 0.01}, "this benchmark")
    shop = replace(open_shop(task, target, Progress(), use_cache=True), runtime=runtime, threads=1)
    graph = float_graph(shop, Recipe())
    shop = replace(shop, baseline=graph)
    shop = replace(shop, floats=converted(shop, graph, Recipe()).artifact)
    made: dict[str, tuple[Artifact, Quality | None]] = {}
    for key, steps in RECIPES[name].items():
        recipe = recipe_from_data({"steps": steps}, f"recipe `{key}`")
        try:
            own = float_graph(shop, recipe)
            built = artifact(shop, own, converted(shop, own, recipe), recipe)
        except EdgekitError as error:
            print(f"  {key}: {error}")
            continue
        made[key] = (built.artifact, built.quality)
    return made, [dict(call) for call in shop.real_calls[:16]]


if __name__ == "__main__":
    main()
