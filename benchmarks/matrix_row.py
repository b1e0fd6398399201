"""One network in one runtime: every precision, through the very stages that a build goes through.

`benchmarks/matrix.py` starts this file in a process of its own, so that a crash costs one cell alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit import alternate
from edgekit.artifact import RuntimeName
from edgekit.compress.half import Half
from edgekit.compress.quantize import Attempt, Quantize, choose
from edgekit.errors import EdgekitError, first_line
from edgekit.plan.recipe import Recipe, Step
from edgekit.progress import Progress
from edgekit.realise import Built, artifact, converted, float_graph
from edgekit.result import Route
from edgekit.runtimes.convert import installed
from edgekit.target import load_target
from edgekit.task.load import Given, load_task
from edgekit.workshop import Workshop, open_shop

PRECISIONS = ("float", "fp16", "int8 PTQ", "int8 QAT", "weight-only")
MOST_DROP = 0.01  # a faster way that loses more than one point is not the better one
TARGETS: dict[RuntimeName, str] = {"tensorrt": "jetson-orin-nano"}  # its opset and its rules; else x86-cpu
FULL, QUICK = {"samples": 128, "epochs": 3}, {"samples": 16, "epochs": 1}
# What is tried for which column; where there are two, the better one is shown.
TRIED = {
    "fp16": "fp16",
    "static": "int8 PTQ",
    "dynamic": "int8 PTQ",
    "qat": "int8 QAT",
    "weight-only": "weight-only",
}
TIMING = "timing"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What came out of one precision.

    Attributes:
        reason: why there is no artifact; empty where there is one, and nothing else is then missing.
        way: the library and its recipe.
        parity_db: signal-to-noise ratio to the float graph's outputs, of the output that has the lowest; for
            the float artifact of onnxruntime, which is the graph, to the torch network's.
        size_ratio: bytes of the runtime's float artifact over this one's.
        speed: time of the runtime's float artifact over this one's, median of one alternating run.
        p50_ms: median time of one call in that run.
        score: of the task's own evaluate().
        drop: what was lost of it against the float graph.
        left_in_float: convolutions and matrix products that are still computed in float, where that is known.
        note: what a reader must know besides.
    """

    reason: str = ""
    way: str = ""
    parity_db: float | None = None
    size_ratio: float | None = None
    speed: float | None = None
    p50_ms: float | None = None
    score: float | None = None
    drop: float | None = None
    left_in_float: int | None = None
    note: str = ""


def cells(
    source: str, runtime: RuntimeName, crashed: Mapping[str, str], say: Callable[[str], None], *, quick: bool
) -> dict[str, Cell]:
    """All precisions of one network in one runtime; none is missing.

    Args:
        source: the task file.
        runtime: what executes the artifacts.
        crashed: what is not to be tried again, and why: of TRIED, "float" or TIMING.
        say: is told what is tried next.
        quick: with few samples, one epoch and a short timing: to see whether it works at all.

    Raises:
        EdgekitError: the task or the runtime cannot be loaded here, which says nothing about the network.
    """
    say("float")
    if "float" in crashed:
        return dict.fromkeys(PRECISIONS, Cell(reason=crashed["float"]))
    opened = _open(source, runtime)
    try:
        shop, start = _converted(opened)
    except EdgekitError as error:
        return dict.fromkeys(PRECISIONS, Cell(reason=_line(error)))
    builds, reasons = {"float": start}, dict(crashed)
    for name in [name for name in TRIED if name not in crashed]:
        say(name)
        try:
            builds[name] = _made(shop, start, _step(name, QUICK if quick else FULL))
        except EdgekitError as error:
            reasons[name] = _line(error)
        except Exception as error:  # noqa: BLE001 - it is the cell's content
            reasons[name] = f"fails: {first_line(error)}"
    say(TIMING)
    if quick:
        alternate.EACH_S = 0.1
    return _table(builds, reasons, {} if TIMING in crashed else _timed(shop, builds))


def _step(name: str, effort: Mapping[str, Any]) -> Step:
    return Half() if name == "fp16" else Quantize(method=name, **effort)  # type: ignore[arg-type]


def _open(source: str, runtime: RuntimeName) -> Workshop:
    """The workshop of the task in this runtime."""
    if lacking := installed(runtime):
        raise lacking
    task = load_task(source, Given())
    target = load_target(TARGETS.get(runtime, "x86-cpu")).with_limits({"drop": MOST_DROP}, "the matrix")
    return replace(open_shop(task, target, Progress(), use_cache=True), runtime=runtime, threads=1)


def _converted(shop: Workshop) -> tuple[Workshop, Built]:
    """The float artifact with its parity and its quality, and the workshop that knows it."""
    graph = float_graph(shop, Recipe())
    shop = replace(shop, baseline=graph)
    made = converted(shop, graph, Recipe())
    shop = replace(shop, floats=made.artifact)
    judged = artifact(shop, graph, made, Recipe())
    return shop, replace(judged, parities=made.parities or graph.parities)


def _made(shop: Workshop, start: Built, step: Step) -> Built:
    """The artifact that one step makes of the float one."""
    if shop.baseline is None:
        raise ValueError("the float graph comes first")
    return artifact(shop, shop.baseline, start, Recipe(steps=(step,)))


def _timed(shop: Workshop, builds: Mapping[str, Built]) -> dict[str, alternate.Compared]:
    """All artifacts in one alternating run of one thread."""
    artifacts = {name: built.artifact for name, built in builds.items()}
    return alternate.compare_artifacts(artifacts, shop.real_calls[:8], threads=1)


def _table(
    builds: Mapping[str, Built], reasons: Mapping[str, str], times: Mapping[str, alternate.Compared]
) -> dict[str, Cell]:
    """The cells, each from the better of what was tried for it."""
    found = {"float": _cell(builds, "float", times)}
    for precision in PRECISIONS[1:]:
        names = [name for name, column in TRIED.items() if column == precision]
        made = [name for name in names if name in builds]
        if made:
            found[precision] = _cell(builds, _better(builds, made, times), times)
        else:
            found[precision] = Cell(reason=_why([reasons[name] for name in names]))
    return found


def _why(reasons: Sequence[str]) -> str:
    """The reasons as one line; that a method does not exist says little beside why another one failed."""
    telling = [reason for reason in reasons if " has no method " not in reason]
    return "; ".join(dict.fromkeys(telling or reasons))


def _better(builds: Mapping[str, Built], names: list[str], times: Mapping[str, alternate.Compared]) -> str:
    """By the rule that chooses between ways within one build."""
    cells = {name: _cell(builds, name, times) for name in names}
    attempts = [
        Attempt(
            builds[name].artifact,
            Route(
                name=name,
                chosen=False,
                reason="",
                latency_ratio=cell.speed,
                size_ratio=cell.size_ratio,
                drop=cell.drop,
            ),
        )
        for name, cell in cells.items()
    ]
    _, routes = choose(attempts, MOST_DROP)
    return next(route.name for route in routes if route.chosen)


def _cell(builds: Mapping[str, Built], name: str, times: Mapping[str, alternate.Compared]) -> Cell:
    built, floats = builds[name], builds["float"]
    quality, time = built.quality, times.get(name)
    route = next((route for route in built.routes if route.chosen), None)
    return Cell(
        way=route.name if route else "",
        parity_db=built.parities[-1].snr_db if built.parities else math.inf,
        size_ratio=floats.artifact.size_bytes / built.artifact.size_bytes,
        speed=1 / time.ratio_to_first if time else None,
        p50_ms=time.p50_ms if time else None,
        score=quality.score if quality else None,
        drop=quality.drop if quality else None,
        left_in_float=route.left_in_float if route else None,
        note="" if time else "timing it killed the process",
    )


def _line(error: EdgekitError) -> str:
    """What is wrong and where, without the network's name, which stands above the row."""
    named = error.where and not error.where.startswith(("quantize ", "half", "the model of "))
    return f"{error.what} ({error.where})" if named else error.what


def main() -> None:
    """What `benchmarks/matrix.py` starts: SOURCE RUNTIME FOLDER CRASHED QUICK, the last two as JSON."""
    source, runtime, folder, *rest = sys.argv[1:]
    crashed, quick = map(json.loads, rest)
    now = Path(folder) / "now"
    try:
        found = cells(source, runtime, crashed, lambda text: _say(now, text), quick=quick)  # type: ignore[arg-type]
    except EdgekitError as error:
        sys.exit(f"error: {error}")
    data: dict[str, Any] = {name: asdict(cell) for name, cell in found.items()}
    (Path(folder) / "cells.json").write_text(json.dumps(data))


def _say(now: Path, text: str) -> None:
    now.write_text(text)
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
