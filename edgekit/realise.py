"""Build one candidate: apply its steps, check every stage, and judge the quality of what comes out.

Both halves are kept in the cache: the float graph that the network steps give, and the artifact that the
graph steps make of it. What the artifact costs is `edgekit.measure`'s subject.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgekit.cache import Cache, default_root, digest_file
from edgekit.compress.context import Context
from edgekit.errors import count
from edgekit.graph.rewrite import drop_unused_domains
from edgekit.ondevice.runner.facts import gather
from edgekit.plan.recipe import Recipe, Step, recipe_key
from edgekit.progress import Detail, Progress
from edgekit.result import Parity, Quality, Route, Tried
from edgekit.runtimes import onnxruntime
from edgekit.task.quality import Original, judge_original, measure_quality
from edgekit.verify import FLOAT_FLOOR_DB, check_export, check_graph
from edgekit.versions import versions

if TYPE_CHECKING:
    import torch

    from edgekit.target import Target
    from edgekit.task.record import Task

Call = Mapping[str, np.ndarray]
MODEL, FOUND = "model.onnx", "found.json"

# 16-bit floats keep 11 bits: 60 dB an operation. 8-bit integers keep 8 or 7, and errors add up over layers;
# below 10 dB a tenth of the outputs' energy is noise. What that costs the task is the quality's subject.
FLOOR_DB = {"half": 30.0, "quantize": 10.0}


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all candidates of one build share.

    Attributes:
        calls: calibration calls by input name; empty when there is no calibration data.
        example: the deployed call by input name.
        machine: fingerprint of this machine, on which routes are timed; `machine_words` names it.
        artifacts: files by the candidate's name, filled as they are built.
        baseline: the float graph of the task's own network, once it has been made.
    """

    task: Task
    target: Target
    calls: tuple[Call, ...]
    example: Call
    machine: str
    machine_words: str
    cache: Cache
    progress: Progress
    baseline: Graph | None = None
    artifacts: dict[str, Path] = field(default_factory=dict)

    @property
    def real_calls(self) -> tuple[Call, ...]:
        """Real inputs to compare stages on: the calibration data, else the example."""
        return self.calls or (self.example,)

    def load(self, tried: Tried) -> onnx.ModelProto:
        """The artifact of a candidate that was built."""
        return onnx.load(self.artifacts[tried.name])

    @cached_property
    def original(self) -> Original:
        """How good the float network is on the task; judged once, and only when something needs it."""
        if self.baseline is None:
            raise ValueError("quality is asked for before there is a float graph")
        return judge_original(self.baseline.load(), self.task)

    def measure(self, model: onnx.ModelProto) -> Quality:
        """The quality of a graph on the task, against the original."""
        return measure_quality(model, self.task, self.original)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """An ONNX file in the cache, and what was found out while it was made."""

    path: Path
    parities: tuple[Parity, ...] = ()
    routes: tuple[Route, ...] = ()
    quality: Quality | None = None
    notes: tuple[str, ...] = ()

    def load(self) -> onnx.ModelProto:
        """The model itself."""
        return onnx.load(self.path)


@dataclass(kw_only=True)
class _Found:
    parities: list[Parity] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    quality: Quality | None = None
    notes: list[str] = field(default_factory=list)


def open_shop(task: Task, target: Target, progress: Progress, *, use_cache: bool) -> Workshop:
    """The workshop of one build, on this machine."""
    facts = gather()
    return Workshop(
        task=task,
        target=target,
        calls=tuple(map(task.named, task.calibration or ())),
        example=task.named(task.example),
        machine=facts["fingerprint"],
        machine_words=", ".join(
            (facts["cpu_model"] or "unknown CPU", count(facts["cores"], "core"), facts["arch"])
        ),
        cache=Cache(default_root() if use_cache else None),
        progress=progress,
    )


def float_graph(shop: Workshop, recipe: Recipe) -> Graph:
    """The float graph of the task's network after the recipe's network steps, checked against the network.

    Raises:
        BadInput: a step cannot treat the network, or it cannot be converted.
        VerificationFailed: the graph does not compute what the network computes.
    """
    steps = tuple(step for step in recipe.steps if step.level == "network")
    if shop.baseline is not None and not steps:
        return shop.baseline
    title = f"{_title(steps)}, convert" if steps else "convert to ONNX"
    key = {
        "task": shop.task.sources_digest,
        "steps": recipe_key(steps),
        "round_to": shop.target.profile.simd_width,
        "opset": [shop.target.opset, shop.target.ir_version],
        "versions": versions(),
    }

    def make(folder: Path, detail: Detail) -> None:
        found = _Found()
        network: Any = shop.task.model
        context = _context(shop, detail)
        for step in steps:
            network = step.apply(network, shop.task, context)
        detail("export")
        model, found.notes = onnxruntime.convert(
            network, shop.task, opset=shop.target.opset, ir_version=shop.target.ir_version
        )
        detail("compare with the network")
        found.parities.append(_check_float(network, model, shop))
        _keep(folder, model, found)

    return _graph_stage(shop, title, key, make)


def artifact(shop: Workshop, graph: Graph, recipe: Recipe) -> Graph:
    """What the recipe's graph steps make of the float graph, with its quality on the task.

    Raises:
        BadInput: a step cannot treat the graph.
        VerificationFailed: the artifact is too far from the float graph.
    """
    steps = tuple(step for step in recipe.steps if step.level == "graph")
    budget = shop.target.budget
    title = f"{_title(steps)}, judge" if steps else "judge the quality"
    key = {
        "graph": digest_file(graph.path),
        "task": shop.task.sources_digest,
        "steps": recipe_key(steps),
        "limits": [figure and figure.value for figure in (budget.drop, budget.class_drop, budget.size_mb)],
        "reduce_range": shop.target.profile.reduce_range,
        "machine": shop.machine,
        "versions": versions(),
    }

    def make(folder: Path, detail: Detail) -> None:
        found = _Found()
        float_model = graph.load()
        model: Any = float_model
        context = _context(shop, detail)
        for step in steps:
            model = step.apply(model, shop.task, context)
            floor_db = FLOOR_DB[step.step]
            detail("compare with the float graph")
            found.parities.append(
                check_graph(f"float32 -> {step.step}", float_model, model, shop.real_calls, floor_db)
            )
        detail("quality on the task")
        found.quality = shop.measure(model) if recipe.steps else shop.original.quality
        found.routes = context.routes
        _keep(folder, model, found)

    return _graph_stage(shop, title, key, make)


def _title(steps: tuple[Step, ...]) -> str:
    """`prune to 50 %, distill`: what the steps do, for the progress line and the cache's key."""
    return ", ".join(f"prune to {step.macs:.0%}" if step.step == "prune" else step.step for step in steps)


def _check_float(
    network: torch.nn.Module | onnx.ModelProto, model: onnx.ModelProto, shop: Workshop
) -> Parity:
    if isinstance(network, onnx.ModelProto):
        return check_graph("file -> prepared", network, model, shop.real_calls, FLOAT_FLOOR_DB)
    return check_export(network, model, shop.real_calls)


def _context(shop: Workshop, detail: Detail) -> Context:
    budget = shop.target.budget
    drop, class_drop, size = budget.drop, budget.class_drop, budget.size_mb
    return Context(
        example=shop.example,
        calls=shop.calls,
        measure=shop.measure,
        max_drop=drop.value if drop else None,
        max_class_drop=class_drop.value if class_drop else None,
        most_bytes=size.value * 1e6 if size else None,
        round_to=shop.target.profile.simd_width,
        reduce_range=shop.target.profile.reduce_range,
        detail=detail,
    )


def _graph_stage(
    shop: Workshop, title: str, key: Mapping[str, Any], make: Callable[[Path, Detail], None]
) -> Graph:
    folder = stage(shop, title, key, make)
    found = json.loads((folder / FOUND).read_text())
    return Graph(
        path=folder / MODEL,
        parities=tuple(Parity(**item) for item in found["parities"]),
        routes=tuple(Route(**item) for item in found["routes"]),
        quality=Quality(**found["quality"]) if found["quality"] else None,
        notes=tuple(found["notes"]),
    )


def stage(shop: Workshop, title: str, key: Mapping[str, Any], make: Callable[[Path, Detail], None]) -> Path:
    """The folder of a stage's files: from the cache, or made now under a progress line."""
    folder = shop.cache.find(title, key)
    if folder is not None:
        shop.progress.say(f"[green]✓[/green] {title} [dim]from the cache[/dim]")
        return folder
    with shop.progress.stage(title) as detail:
        return shop.cache.make(title, key, lambda folder: make(folder, detail))


def _keep(folder: Path, model: onnx.ModelProto, found: _Found) -> None:
    drop_unused_domains(model)
    onnx.save(model, folder / MODEL)
    (folder / FOUND).write_text(json.dumps(asdict(found)))  # Infinity is written and read back by json
