"""The whole program in one page: load, plan, compress, convert, verify, measure, package."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cost import outcome
from edgekit.result import BuildResult, Plan
from edgekit.target import load_target
from edgekit.task.load import Given, load_task

if TYPE_CHECKING:
    from edgekit.graph.layers import Layer
    from edgekit.plan.candidates import Candidate
    from edgekit.plan.search import Found
    from edgekit.progress import Progress
    from edgekit.realise import Workshop

COMMAND_LINE = "the command line"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for.

    Attributes:
        source: what `edgekit.task.load` takes.
        given: the options that stand for the functions of a task file.
        target: a name, or the path of a YAML file.
        limits: values of fields of `Cost`, in their units, that replace the target's own.
        recipe: replay this file instead of searching.
        output: the bundle's folder; `dist/TASK-TARGET` when None.
        archive: write the bundle as one file too.
        use_cache: look stages up, and keep them.
    """

    source: str
    target: str
    given: Given = field(default_factory=Given)
    limits: Mapping[str, float] = field(default_factory=dict)
    recipe: Path | None = None
    output: Path | None = None
    archive: bool = False
    use_cache: bool = True


def plan(request: Request, progress: Progress) -> Plan:
    """The candidates with their predicted cost. Nothing is written but the cache.

    Raises:
        EdgekitError: as for `build`.
    """
    from edgekit.plan.candidates import foresee
    from edgekit.plan.cost_model import layer_times_ms
    from edgekit.plan.search import skip

    prepared = _prepare(request, progress)
    target, layers = prepared.shop.target, prepared.layers
    times = layer_times_ms(layers, target.profile, runtime=target.runtimes[0], threads=target.threads)
    return Plan(
        task=prepared.shop.task.name,
        target=target.name,
        profile=target.profile.name,
        runtime=target.runtimes[0],
        threads=target.threads,
        budget=target.budget,
        candidates=tuple(
            skip(one, foresee(one, layers, target), target.budget, "") for one in prepared.candidates
        ),
        layers=tuple(zip(layers, times, strict=True)),
        notes=prepared.notes,
        warnings=tuple(progress.warnings),
    )


def build(request: Request, progress: Progress) -> BuildResult:
    """Find the mildest recipe that fits the target's budget, and write its bundle.

    When none fits, the nearest one is written, and the result says by how much it misses.

    Raises:
        BadInput: something that the user gave cannot be used.
        OutsideFailure: the disk is full, a package is missing.
        VerificationFailed: the converted float network does not compute what the network computes.
    """
    from edgekit.bundle.place import check_destination
    from edgekit.plan.search import what_to_relax
    from edgekit.shipping import place_for, ship
    from edgekit.versions import versions

    start = time.monotonic()
    if request.output:
        check_destination(request.output)  # before the work, not after it
    prepared = _prepare(request, progress)
    shop = prepared.shop
    place = request.output or place_for(shop)
    check_destination(place)
    found = _search(prepared)
    shipped = found.tried[found.shipped]
    with progress.stage(f"package {shipped.name}"):
        ship(shop, shipped, place, archive=request.archive)
    target = shop.target
    return BuildResult(
        task=shop.task.name,
        target=target.name,
        profile=target.profile.name,
        runtime=target.runtimes[0],
        threads=shipped.recipe.get("threads", target.threads),
        budget=target.budget,
        tried=found.tried,
        shipped=found.shipped,
        outcome=shipped.outcome or outcome(list(shipped.verdicts)),
        bundle=place,
        relax=what_to_relax(shipped.verdicts),
        notes=prepared.notes,
        warnings=tuple(progress.warnings),
        reused=tuple(shop.cache.reused),
        versions=versions(),
        machine=shop.machine_words,
        seconds=time.monotonic() - start,
    )


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A task on its target, converted as it is, and what is worth trying.

    Attributes:
        notes: what the conversion had to do, and what is not offered.
    """

    shop: Workshop
    layers: tuple[Layer, ...]
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]


def _prepare(request: Request, progress: Progress) -> _Prepared:
    from edgekit.graph.layers import describe
    from edgekit.plan.candidates import candidates, given_recipe, offer_for
    from edgekit.plan.recipe import Recipe, load_recipe
    from edgekit.realise import float_graph, open_shop

    target = load_target(request.target)
    target.with_limits(request.limits, COMMAND_LINE)  # refused before the task is loaded, not after
    recipe = load_recipe(request.recipe) if request.recipe else None
    with progress.stage(f"load {request.source}"):
        task = load_task(request.source, request.given)
    for note in task.notes:
        progress.warn(note)
    target = (target if task.evaluate else target.for_fidelity()).with_limits(request.limits, COMMAND_LINE)
    shop = open_shop(task, target, progress, use_cache=request.use_cache)
    baseline = float_graph(shop, Recipe())
    graph = baseline.load()
    offer = offer_for(task, graph)
    offered = candidates(target, offer)
    return _Prepared(
        shop=replace(shop, baseline=baseline),
        layers=describe(graph, shop.example).layers,
        candidates=(given_recipe(recipe, offered[0]),) if recipe else tuple(offered),
        notes=(*baseline.notes, *(() if recipe else offer.why_not)),
    )


def _search(prepared: _Prepared) -> Found:
    from edgekit.measure import build_and_measure
    from edgekit.plan.candidates import foresee
    from edgekit.plan.search import search

    shop, target = prepared.shop, prepared.shop.target
    return search(
        prepared.candidates,
        target.budget,
        foresee=lambda candidate: foresee(candidate, prepared.layers, target),
        realise=lambda candidate: build_and_measure(shop, candidate),
        on_device=target.local,
    )
