"""What a candidate costs: size, memory and quality measured here, latency measured or predicted."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from edgekit.alternate import compare_artifacts
from edgekit.artifact import Artifact
from edgekit.bench import Mode, bench, cost_of, measure_memory
from edgekit.bundle.golden import HALF
from edgekit.cost import Cost, Figure, How
from edgekit.errors import BadInput
from edgekit.graph.layers import Layer, describe
from edgekit.plan.candidates import Candidate, precision_of
from edgekit.plan.cost_model import predict
from edgekit.progress import Detail
from edgekit.realise import FOUND, Built, artifact, converted, float_graph, stage
from edgekit.result import Parity, Quality, Tried
from edgekit.shipping import pack
from edgekit.target import Target
from edgekit.versions import versions
from edgekit.workshop import Graph, Workshop

# Peak memory of one inference process on aarch64 over x86-64, for the same file: 0.82 with onnxruntime, 1.0
# with LiteRT (docs/decisions/memory.md). The room above is for what other kernels and allocators may add.
MEMORY_LOW, MEMORY_HIGH = 0.75, 1.25
COMPARED_CALLS = 8
STANDS_IN = {"tensorrt": "onnxruntime in TensorRT's place"}


def build_and_measure(shop: Workshop, candidate: Candidate) -> Tried:
    """Build the candidate and find what it costs; the verdicts and the reason are the search's to add.

    Raises:
        BadInput: a step cannot treat the network, or what comes out does not run on the target.
        VerificationFailed: an artifact does not compute what it should.
    """
    graph = float_graph(shop, candidate.recipe)
    start = converted(shop, graph, candidate.recipe)
    built = artifact(shop, graph, start, candidate.recipe)
    refuse_unfit(built.artifact, shop.target)
    shop.artifacts[candidate.name] = built.artifact
    route = next((route.name for route in built.routes if route.chosen), None)
    threads = candidate.recipe.threads or shop.threads
    done = candidate.recipe.pinned(
        route=route, round_to=shop.target.profile.simd_width, runtime=shop.runtime, threads=threads
    )
    parities, certain = (*graph.parities, *start.parities), _certain(built, local=shop.target.local)
    tried = Tried(
        name=candidate.name,
        recipe=done.data(),
        cost=certain if candidate.recipe.steps else _nothing_lost(parities) | certain,
        quality=built.quality,
        parities=(*parities, *built.parities),
        routes=built.routes,
        notes=start.notes,
        steps=graph.reports,
    )
    if shop.target.local:
        return _on_device(shop, tried)
    return _elsewhere(shop, tried, graph, threads)


def _certain(built: Built, *, local: bool) -> Cost:
    """Size, and the quality that the artifact has in this machine's runtime."""
    artifact = built.artifact
    size = Figure(value=artifact.size_bytes / 1e6, how="measured", source="bytes of the artifact on disk")
    quality = built.quality
    if quality is None or quality.drop is None:
        return Cost(size_mb=size)
    source = _quality_source(quality, STANDS_IN.get(artifact.runtime, artifact.runtime))
    how: How = "measured"
    if not local and artifact.options.get("precision") in HALF:
        how, source = "predicted", f"{source}, in float32 what the device computes in 16 bits"
    worst = quality.class_drop
    named = f"; class {quality.worst_class}" if worst else ""  # where nothing is lost, no class is the worst
    return Cost(
        size_mb=size,
        drop=Figure(value=quality.drop, how=how, source=source),
        class_drop=None if worst is None else Figure(value=worst, how=how, source=source + named),
    )


def refuse_unfit(artifact: Artifact, target: Target) -> None:
    """Refuse an artifact that the package which the target installs would compute wrongly.

    Raises:
        BadInput: it would, or not at all.
    """
    for package, reason in artifact.options.get("not_with", {}).items():
        if package in target.requirements_for(artifact.runtime):
            raise BadInput(
                f"{package}, which is installed on {target.name}, {reason}",
                where="the artifact",
                todo="take another route",
            )


def _nothing_lost(parities: Sequence[Parity]) -> Cost:
    """The network as it is, converted, loses nothing, whether or not there is data to judge it by."""
    lowest_db = min(parity.snr_db for parity in parities)
    agreement = f"agree to {lowest_db:.0f} dB" if math.isfinite(lowest_db) else "are equal"
    source = f"the network is unchanged: its outputs and the artifact's {agreement} on this machine"
    return Cost(drop=Figure(value=0.0, how="measured", source=source))


def _quality_source(quality: Quality, runtime: str) -> str:
    judged = "the task's evaluate()" if quality.kind == "accuracy" else f"{quality.kind} with the original"
    samples = f" on {quality.samples} samples" if quality.samples is not None else ""
    return f"{judged}{samples}, the artifact run by {runtime} on this machine"


def _on_device(shop: Workshop, tried: Tried) -> Tried:
    """The candidate measured on this machine, which is the device; anew each time, for it is the proof."""
    stage_of = shop.progress.stage(f"measure {tried.name} in {shop.runtime}")
    with stage_of as detail, tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        bundle = Path(folder) / "bundle"
        pack(shop, tried, bundle)
        cost = _bench(shop, tried.name, bundle, detail) | tried.cost
        detail("speed against the float network, in turns")
        return replace(tried, cost=cost, speedup_here=_speedup(shop, tried))


def _elsewhere(shop: Workshop, tried: Tried, graph: Graph, threads: int) -> Tried:
    """The candidate with what was measured here, and what that and the profile say of the target.

    The measurements are kept in the cache: the same input gives the same bundle.
    """
    built = shop.artifacts[tried.name]
    key = {
        "artifact": built.digest(),
        "against": shop.floats and shop.floats.digest(),
        "task": shop.task.sources_digest,
        "threads": threads,
        "machine": shop.machine,
        "versions": versions(),
    }

    def make(folder: Path, detail: Detail) -> None:
        pack(shop, tried, folder / "bundle")
        detail("memory, in a process of its own")
        memory = measure_memory(folder / "bundle")["peak_rss_mb"]
        shutil.rmtree(folder / "bundle")
        detail("speed against the float network, in turns")
        found = {"peak_rss_mb": memory, "speedup": _speedup(shop, tried)}
        (folder / FOUND).write_text(json.dumps(found))

    found = json.loads(
        (stage(shop, f"measure {tried.name} in {shop.runtime}", key, make) / FOUND).read_text()
    )
    here = _memory(found["peak_rss_mb"], STANDS_IN.get(shop.runtime))
    foreseen = _foreseen(shop, tried, graph, threads)
    # What the stand-in takes here says nothing of the memory that the runtime itself will take.
    carried = Cost() if shop.runtime in STANDS_IN else _carried_over(here)
    return replace(tried, cost=foreseen | carried | tried.cost, here=here, speedup_here=found["speedup"])


def _foreseen(shop: Workshop, tried: Tried, graph: Graph, threads: int) -> Cost:
    """Latency and size on the target by the artifact's layers.

    They are an ONNX file's own, else the float graph's in the artifact's precision. Where some of these stay
    in float, and nothing says which, the prediction is that of float, and its low end that of integers.
    """
    built, profile = shop.artifacts[tried.name], shop.target.profile

    def predicted(layers: Sequence[Layer]) -> Cost:
        return predict(layers, profile, runtime=shop.runtime, threads=threads)

    # A file for TensorRT that is to compute in float16 is in float32 itself.
    if built.path.suffix == ".onnx" and built.options.get("precision") != "fp16":
        return predicted(describe(onnx.load(built.path), shop.example).layers)
    layers = describe(graph.load(), shop.example).layers
    precision = precision_of(tried.recipe, shop.runtime)
    whole = predicted([replace(layer, precision=precision) if layer.macs else layer for layer in layers])
    left = next((route.left_in_float for route in tried.routes if route.chosen), 0)
    if not left or precision == "float32":
        return whole
    return Cost(**{name: _lower(figure, whole, name) for name, figure in predicted(layers).known()})


def _lower(figure: Figure, other: Cost, name: str) -> Figure:
    """The prediction with its low end at that of another one, where that is lower."""
    lows = [one.low for one in (figure, dict(other.known()).get(name)) if one and one.low is not None]
    return replace(figure, low=min(lows)) if lows else figure


def _memory(peak: float | None, stands_in: str | None) -> Cost:
    if peak is None:
        return Cost()
    by = f" in {stands_in}" if stands_in else ""
    source = f"peak resident memory of a process that loads and runs the artifact{by}, on this machine"
    return Cost(peak_memory_mb=Figure(value=peak, how="measured", source=source))


def _carried_over(here: Cost) -> Cost:
    """What memory measured on this machine says of the target: a prediction, with an interval."""
    peak = here.peak_memory_mb
    if peak is None:
        return Cost()
    source = f"{peak.value:.1f} MB measured on this machine, a quarter less or more on another system"
    low, high = peak.value * MEMORY_LOW, peak.value * MEMORY_HIGH
    return Cost(peak_memory_mb=Figure(value=peak.value, low=low, high=high, how="predicted", source=source))


def _bench(shop: Workshop, name: str, bundle: Path, detail: Detail) -> Cost:
    """Latency and memory here: timed long enough to carry the percentiles that are limited."""
    wanted = {limit for limit, _ in shop.target.budget.known() if limit.startswith("latency")}
    modes: tuple[Mode, ...] = ("quick", "standard")
    cost = Cost()
    for mode in modes:
        result = bench(bundle, mode=mode, detail=detail)
        cost = cost_of(result)
        if wanted <= {field for field, _ in cost.known()}:
            break
    if result["warnings"]:
        shop.progress.warn(
            f"the timing of {name} in {shop.runtime} is doubtful: {'; '.join(result['warnings'])}"
        )
    return cost


def _speedup(shop: Workshop, tried: Tried) -> float | None:
    """Time of the float network over this one's: one alternating run on this machine, 1 thread.

    None where another runtime stands in: onnxruntime is slower on the Q/DQ that TensorRT is faster on.
    """
    if shop.floats is None or not tried.recipe["steps"] or shop.runtime in STANDS_IN:
        return None
    compared = compare_artifacts(
        {"float": shop.floats, "candidate": shop.artifacts[tried.name]},
        shop.real_calls[:COMPARED_CALLS],
        threads=1,
    )
    return 1 / compared["candidate"].ratio_to_first
