"""Build one candidate: apply its steps, check every stage, and judge the quality of what comes out.

Three stages, each kept in the cache: the float graph that the network steps give, what a runtime's converter
makes of it, and the artifact that the graph steps make of that. What the artifact costs is
`edgekit.measure`'s subject.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgekit.artifact import Artifact, Converted, read_artifact
from edgekit.cache import digest_file
from edgekit.compress.context import Context
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.way import Way
from edgekit.compress.quantization.ways import possible_ways
from edgekit.compress.saved.persist import load_network, save_network
from edgekit.errors import BadInput
from edgekit.graph.layers import Layer
from edgekit.graph.rewrite import drop_unused_domains
from edgekit.plan.candidates import precision_of
from edgekit.plan.cost_model import layer_times_ms
from edgekit.plan.recipe import Recipe, Step, recipe_key
from edgekit.progress import Detail
from edgekit.result import Change, Parity, Quality, Route, StepReport
from edgekit.runtimes import convert as runtimes
from edgekit.runtimes.float_graph import float_graph as export_float
from edgekit.runtimes.onnxruntime import as_artifact
from edgekit.target_profile import Profile
from edgekit.verify import FLOAT_FLOOR_DB, check_artifact, check_export, check_graph
from edgekit.versions import versions
from edgekit.workshop import Graph, Workshop

if TYPE_CHECKING:
    import torch


Call = Mapping[str, np.ndarray]
MODEL, FOUND, WORK = "model.onnx", "found.json", "work"
TRAINED, WEIGHTS = "train with rounding", "weights.safetensors"
STEPPED = "compress the network"

# 16-bit floats keep 11 bits: 60 dB an operation. Integers keep 8 bits or fewer, and errors add up over the
# layers; outputs with nothing in common are at 0 dB, at 6 dB a quarter of the energy is noise. What that
# costs the task is the quality's subject: an int8 MobileNetV2 at 9.5 dB keeps 99.5 % of its answers.
FLOOR_DB = {"half": 30.0, "quantize": 6.0}


@dataclass(frozen=True, kw_only=True)
class Built:
    """An artifact in the cache, and what was found on the way.

    Attributes:
        quality: on the task; None for what is only converted.
        notes: what the conversion had to do.
    """

    artifact: Artifact
    parities: tuple[Parity, ...] = ()
    routes: tuple[Route, ...] = ()
    quality: Quality | None = None
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Found:
    parities: list[Parity] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    quality: Quality | None = None
    notes: list[str] = field(default_factory=list)
    reports: list[StepReport] = field(default_factory=list)


def network(
    shop: Workshop, recipe: Recipe, folder: Path, detail: Detail
) -> torch.nn.Module | onnx.ModelProto:
    """The task's network after the recipe's network steps.

    Args:
        shop: keeps it, so that the steps are taken once in a build.
        recipe: its graph steps do not matter here.
        folder: where steps may write.
        detail: shows how far they are.

    Raises:
        BadInput: a step cannot treat it.
    """
    key = network_key(shop, recipe)
    if key not in shop.networks:
        kept = _kept_network(shop, key)
        shop.networks[key], shop.reports[key] = kept or _stepped(shop, key, recipe, folder, detail)
    return shop.networks[key]


def network_key(shop: Workshop, recipe: Recipe) -> str:
    """The network steps as text, with what prices their layers where a step goes by prices."""
    steps = _steps(recipe, "network")
    if not any(step.step == "factorize" and step.gain == "latency" for step in steps):
        return recipe_key(steps)
    profile, runtime = shop.target.profile, shop.runtime
    model = profile.cost_model.get(runtime)
    prices = [profile.clock_mhz, profile.macs_per_cycle, profile.cores, model and model.model_dump()]
    ends_in = precision_of(recipe.data(), runtime)
    return f"{recipe_key(steps)} {json.dumps([runtime, shop.threads, ends_in, prices])}"


def _stepped(
    shop: Workshop, key: str, recipe: Recipe, folder: Path, detail: Detail
) -> tuple[torch.nn.Module | onnx.ModelProto, tuple[StepReport, ...]]:
    """The network after these steps, taken now, and kept in the cache where it can be written as data."""
    original, steps = shop.task.model, _steps(recipe, "network")
    if not steps:
        return original, ()
    if isinstance(original, onnx.ModelProto):
        raise BadInput(
            f"{steps[0].step} changes a torch network, and the model is an ONNX file",
            where=shop.task.name,
            todo="give the torch network, or leave the step out",
        )
    found, context = original, _context(shop, folder, detail)
    context.layer_ms = partial(_layer_ms, shop, precision_of(recipe.data(), shop.runtime))
    context.unfinished = shop.cache.unfinished(STEPPED, _network_key(shop, key))
    for step in steps:
        found = step.apply(found, shop.task, context)

    def fill(place: Path) -> None:
        save_network(place, original, found)
        _keep(place, _Found(reports=context.reports))

    with contextlib.suppress(BadInput):  # made of what is no data: it is made anew where it is needed again
        shop.cache.make(STEPPED, _network_key(shop, key), fill)
    if context.unfinished is not None:
        shutil.rmtree(context.unfinished, ignore_errors=True)
    return found, tuple(context.reports)


def _layer_ms(shop: Workshop, precision: str, layers: Sequence[Layer]) -> float | None:
    """What the cost model foretells for layers in a row, in the precision that the recipe ends in."""
    times = layer_times_ms(
        [replace(layer, precision=precision) for layer in layers],
        shop.target.profile,
        runtime=shop.runtime,
        threads=shop.threads,
    )
    return None if times is None else sum(times)


def _kept_network(
    shop: Workshop, key: str
) -> tuple[torch.nn.Module | onnx.ModelProto, tuple[StepReport, ...]] | None:
    """The network after the same steps from the cache, its weights in a copy of the task's; None without."""
    folder = shop.cache.find(STEPPED, _network_key(shop, key))
    if folder is None or isinstance(shop.task.model, onnx.ModelProto):
        return None
    return load_network(folder, copy.deepcopy(shop.task.model)), tuple(_read(folder).reports)


def _network_key(shop: Workshop, steps: str) -> dict[str, Any]:
    return {
        "task": shop.task.sources_digest,
        "steps": steps,
        "round_to": shop.target.profile.simd_width,
        "versions": versions(),
    }


def float_graph(shop: Workshop, recipe: Recipe) -> Graph:
    """The float graph of the task's network after the recipe's network steps, checked against the network.

    Raises:
        BadInput: a step cannot treat the network, or it cannot be converted.
        VerificationFailed: the graph does not compute what the network computes.
    """
    steps = _steps(recipe, "network")
    if shop.baseline is not None and not steps:
        return shop.baseline
    title = f"{_title(steps)}, convert" if steps else "convert to ONNX"
    key = {
        "task": shop.task.sources_digest,
        "steps": network_key(shop, recipe),
        "round_to": shop.target.profile.simd_width,
        "opset": [shop.target.opset, shop.target.ir_version],
        "versions": versions(),
    }

    def make(folder: Path, detail: Detail) -> None:
        found = _Found()
        given = network(shop, recipe, folder, detail)
        found.reports.extend(shop.reports[network_key(shop, recipe)])
        detail("export")
        model, found.notes = export_float(
            given, shop.task, opset=shop.target.opset, ir_version=shop.target.ir_version
        )
        detail("compare with the network")
        found.parities.append(_check_float(given, model, shop))
        drop_unused_domains(model)
        onnx.save(model, folder / MODEL)
        _keep(folder, found)

    folder = stage(shop, title, key, make)
    found = _read(folder)
    return Graph(
        path=folder / MODEL,
        parities=tuple(found.parities),
        notes=tuple(found.notes),
        reports=tuple(found.reports),
    )


def converted(shop: Workshop, graph: Graph, recipe: Recipe) -> Built:
    """The float graph as the workshop's runtime takes it, checked against the graph.

    Raises:
        BadInput: the runtime's converter cannot treat it.
        VerificationFailed: the artifact does not compute what the graph computes.
        OutsideFailure: the converter or the runtime is not installed.
    """
    runtime = shop.runtime
    if runtime == "onnxruntime":
        return Built(artifact=as_artifact(graph.path))
    key = {
        "graph": digest_file(graph.path),
        "task": shop.task.sources_digest,
        "steps": recipe_key(_steps(recipe, "network")),
        "runtime": runtime,
        "versions": versions(),
    }

    def make(folder: Path, detail: Detail) -> None:
        found = _Found()
        model = graph.load()
        torch_network = _torch_network(shop, recipe, folder, detail)
        made = runtimes.convert(runtime, model, torch_network, shop.task, folder, found.notes)
        detail("compare with the float graph")
        stage_name = f"onnx -> {runtime}"
        found.parities.append(check_artifact(stage_name, model, made, shop.real_calls, FLOAT_FLOOR_DB))
        made.write_record()
        _keep(folder, found)

    return _built(stage(shop, f"convert to {runtime}", key, make))


def artifact(shop: Workshop, graph: Graph, start: Built, recipe: Recipe) -> Built:
    """What the recipe's graph steps make of the converted network, with its quality on the task.

    Raises:
        BadInput: a step cannot treat the network.
        VerificationFailed: the artifact is too far from the float graph.
    """
    steps, budget = _steps(recipe, "graph"), shop.target.budget
    title = f"{_title(steps)}, judge" if steps else "judge the quality"
    key = {
        "artifact": start.artifact.digest(),
        "graph": digest_file(graph.path),
        "task": shop.task.sources_digest,
        "steps": recipe_key(recipe.steps),
        "limits": [figure and figure.value for figure in (budget.drop, budget.class_drop, budget.size_mb)],
        # Measured anew in each build on the device itself; nothing but mixed precision goes by it.
        "least_speedup": shop.least_speedup if any(_is_mixed(step) for step in steps) else None,
        "reduce_range": shop.target.profile.reduce_range,
        "board": _board(shop.target.profile),
        "machine": shop.machine,
        "versions": versions(),
    }

    def make(folder: Path, detail: Detail) -> None:
        found, work = _Found(), folder / WORK
        work.mkdir()
        context = _context(shop, work, detail)
        context.kept_weights = partial(_kept_weights, shop, network_key(shop, recipe))
        whole = Converted(
            graph=graph.path, artifact=start.artifact, network=_torch_network(shop, recipe, work, detail)
        )
        made = start.artifact
        for step in steps:
            made = step.apply(whole, shop.task, context)
            detail("compare with the float graph")
            stage_name = f"float32 -> {step.step}"
            found.parities.append(
                check_artifact(stage_name, graph.load(), made, shop.real_calls, FLOOR_DB[step.step])
            )
        detail("quality on the task")
        unchanged = not recipe.steps and shop.runtime == "onnxruntime"
        found.quality = shop.original.quality if unchanged else shop.measure(made.open())
        found.routes = context.routes
        made.copied_to(folder).write_record()
        shutil.rmtree(work)
        _keep(folder, found)

    return _built(stage(shop, title, key, make))


def _kept_weights(
    shop: Workshop,
    steps: str,
    key: Mapping[str, Any],
    untrained: torch.nn.Module,
    train: Callable[[], torch.nn.Module],
) -> torch.nn.Module:
    """The trained network, its weights from the cache where they are: every runtime starts from the same."""
    from safetensors.torch import load_model, save_model

    whole = {
        "task": shop.task.sources_digest,
        "steps": steps,
        "round_to": shop.target.profile.simd_width,
        **key,
        "versions": versions(),
    }
    folder = shop.cache.find(TRAINED, whole)
    if folder is None:
        folder = shop.cache.make(TRAINED, whole, lambda place: save_model(train(), str(place / WEIGHTS)))
    network = copy.deepcopy(untrained)
    load_model(network, folder / WEIGHTS)
    return network


def quantizers(shop: Workshop) -> tuple[tuple[Way, ...], tuple[str, ...]]:
    """The ways of quantizing that fit the task's own network and the runtime, and why others do not."""
    if shop.baseline is None or shop.floats is None:
        raise ValueError("there is no float artifact yet")
    whole = Converted(
        graph=shop.baseline.path,
        artifact=shop.floats,
        network=_torch_network(shop, Recipe(), shop.baseline.path.parent, lambda _text: None),
    )
    context = _context(shop, shop.baseline.path.parent, lambda _text: None)
    ways, reasons = possible_ways(whole, Settings(), context)
    trained, _ = possible_ways(whole, Settings(method="qat"), context)
    return (*ways, *trained), reasons


def _torch_network(
    shop: Workshop, recipe: Recipe, folder: Path, detail: Detail
) -> Callable[[], torch.nn.Module] | None:
    """Makes the torch network behind a float graph; None where the task brings an ONNX file."""
    if isinstance(shop.task.model, onnx.ModelProto):
        return None

    def make() -> torch.nn.Module:
        found = network(shop, recipe, folder, detail)
        if isinstance(found, onnx.ModelProto):
            raise TypeError("a torch network cannot become an ONNX file by network steps")
        return found

    return make


def _steps(recipe: Recipe, level: str) -> tuple[Any, ...]:
    return tuple(step for step in recipe.steps if step.level == level)


def _board(profile: Profile) -> list[Any]:
    """What the ways of quantizing ask of the board, beside `reduce_range`."""
    return [profile.arch, profile.tensorrt and profile.tensorrt.int8]


def _is_mixed(step: Step) -> bool:
    return step.step == "quantize" and step.route.endswith("-mixed")


def _title(steps: tuple[Step, ...]) -> str:
    """`prune to 50 %, distill`: what the steps do, for the progress line and the cache's key."""
    return ", ".join(f"prune to {step.macs:.0%}" if step.step == "prune" else step.step for step in steps)


def _check_float(
    network: torch.nn.Module | onnx.ModelProto, model: onnx.ModelProto, shop: Workshop
) -> Parity:
    if isinstance(network, onnx.ModelProto):
        return check_graph("file -> prepared", network, model, shop.real_calls, FLOAT_FLOOR_DB)
    return check_export(network, model, shop.real_calls)


def _context(shop: Workshop, folder: Path, detail: Detail) -> Context:
    budget = shop.target.budget
    drop, class_drop, size = budget.drop, budget.class_drop, budget.size_mb
    return Context(
        example=shop.example,
        calls=shop.calls,
        measure=shop.measure,
        max_drop=drop.value if drop else None,
        max_class_drop=class_drop.value if class_drop else None,
        most_bytes=size.value * 1e6 if size else None,
        least_speedup=shop.least_speedup,
        round_to=shop.target.profile.simd_width,
        reduce_range=shop.target.profile.reduce_range,
        folder=folder,
        profile=shop.target.profile,
        detail=detail,
    )


def stage(shop: Workshop, title: str, key: Mapping[str, Any], make: Callable[[Path, Detail], None]) -> Path:
    """The folder of a stage's files: from the cache, or made now under a progress line."""
    folder = shop.cache.find(title, key)
    if folder is not None:
        shop.progress.say(f"[green]✓[/green] {title} [dim]from the cache[/dim]")
        return folder
    with shop.progress.stage(title) as detail:
        return shop.cache.make(title, key, lambda folder: make(folder, detail))


def _keep(folder: Path, found: _Found) -> None:
    (folder / FOUND).write_text(json.dumps(asdict(found)))  # Infinity is written and read back by json


def _read(folder: Path) -> _Found:
    data = json.loads((folder / FOUND).read_text())
    return _Found(
        parities=[Parity(**item) for item in data["parities"]],
        routes=[Route(**item) for item in data["routes"]],
        quality=Quality(**data["quality"]) if data["quality"] else None,
        notes=data["notes"],
        reports=[_report(item) for item in data["reports"]],
    )


def _report(data: Mapping[str, Any]) -> StepReport:
    def pairs(item: Mapping[str, Any]) -> dict[str, Any]:
        return {**item, "params": tuple(item["params"]), "macs": tuple(item["macs"])}

    changes = tuple(Change(**pairs(change)) for change in data["changes"])
    return StepReport(**{**pairs(data), "changes": changes, "notes": tuple(data["notes"])})


def _built(folder: Path) -> Built:
    found = _read(folder)
    return Built(
        artifact=read_artifact(folder),
        parities=tuple(found.parities),
        routes=tuple(found.routes),
        quality=found.quality,
        notes=tuple(found.notes),
    )
