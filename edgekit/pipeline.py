"""The whole program in one page: load, plan, compress, convert, verify, measure, package."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cost import Cost, outcome
from edgekit.errors import BadInput
from edgekit.result import BuildResult, Plan
from edgekit.target import load_target
from edgekit.task.load import Given, load_task

if TYPE_CHECKING:
    from edgekit.artifact import RuntimeName
    from edgekit.bakeoff import Outcome
    from edgekit.graph.layers import Layer
    from edgekit.plan.candidates import Candidate
    from edgekit.plan.recipe import Recipe
    from edgekit.plan.search import Found
    from edgekit.progress import Progress
    from edgekit.result import Tried
    from edgekit.target import Target

COMMAND_LINE = "the command line"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for.

    Attributes:
        source: what `edgekit.task.load` takes.
        given: the options that stand for the functions of a task file.
        target: a name, or the path of a YAML file.
        limits: values of fields of `Cost`, in their units, that replace the target's own.
        recipe: replay this instead of searching: a recipe, or its file.
        runtime: what shall execute the artifact; the fastest of the target's when None.
        output: the bundle's folder; `dist/TASK-TARGET` when None.
        archive: write the bundle as one file too.
        offline: put the device's packages into the bundle.
        use_cache: look stages up, and keep them.
    """

    source: str
    target: str
    given: Given = field(default_factory=Given)
    limits: Mapping[str, float] = field(default_factory=dict)
    recipe: Recipe | Path | None = None
    runtime: RuntimeName | None = None
    output: Path | None = None
    archive: bool = False
    offline: bool = False
    use_cache: bool = True


def plan(request: Request, progress: Progress) -> Plan:
    """The candidates with their predicted cost. Nothing is written but the cache.

    Raises:
        EdgekitError: as for `build`.
    """
    from edgekit.plan.cost_model import layer_times_ms
    from edgekit.plan.search import skip

    prepared = _prepare(request, progress)
    shop, layers = prepared.baked.shop, prepared.layers
    target = shop.target
    times = layer_times_ms(layers, target.profile, runtime=shop.runtime, threads=shop.threads)
    return Plan(
        task=shop.task.name,
        target=target.name,
        profile=target.profile.name,
        runtime=shop.runtime,
        threads=shop.threads,
        budget=target.budget,
        candidates=tuple(
            skip(one, _foresee(prepared, one), target.budget, "") for one in prepared.candidates
        ),
        layers=tuple(zip(layers, times, strict=True)) if times else (),
        runtimes=prepared.baked.rivals,
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
    from edgekit.shipping import offline_wheels, place_for, ship
    from edgekit.versions import versions

    start = time.monotonic()
    if request.output:
        check_destination(request.output)  # before the work, not after it
    prepared = _prepare(request, progress)
    shop = prepared.baked.shop
    place = request.output or place_for(shop)
    check_destination(place)
    wheels = {}
    if request.offline:
        with progress.stage("fetch the device's packages") as detail:
            wheels = offline_wheels(shop, detail)
    found = _search(prepared)
    shipped = found.tried[found.shipped]
    with progress.stage(f"package {shipped.name}"):
        ship(shop, shipped, place, archive=request.archive, wheels=wheels)
    target = shop.target
    return BuildResult(
        task=shop.task.name,
        target=target.name,
        profile=target.profile.name,
        runtime=shop.runtime,
        threads=shipped.recipe.get("threads", shop.threads),
        budget=target.budget,
        tried=found.tried,
        shipped=found.shipped,
        outcome=shipped.outcome or outcome(list(shipped.verdicts)),
        bundle=place,
        runtimes=prepared.baked.rivals,
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
    """A task on its target, converted as it is for the best runtime, and what is worth trying.

    Attributes:
        notes: what the conversion had to do, and what is not offered.
    """

    baked: Outcome
    layers: tuple[Layer, ...]
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]


def _prepare(request: Request, progress: Progress) -> _Prepared:
    from edgekit.bakeoff import bake_off
    from edgekit.graph.layers import describe
    from edgekit.plan.candidates import candidates, given_recipe, offer_for, unchanged
    from edgekit.plan.recipe import Recipe
    from edgekit.realise import float_graph, quantizers
    from edgekit.workshop import open_shop

    recipe = _recipe(request)
    target, others = _target(request, recipe)
    with progress.stage(f"load {request.source}"):
        task = load_task(request.source, request.given)
    for note in task.notes:
        progress.warn(note)
    target = (target if task.evaluate else target.for_fidelity()).with_limits(request.limits, COMMAND_LINE)
    shop = open_shop(task, target, progress, use_cache=request.use_cache)
    baseline = float_graph(shop, Recipe())
    graph = baseline.load()
    layers = describe(graph, shop.example).layers
    as_it_is = unchanged(graph)
    baked = bake_off(replace(shop, baseline=baseline), as_it_is, layers, others)
    notes = [*baseline.notes, *baked.unchanged.notes]
    if recipe:
        offered = [given_recipe(recipe, as_it_is)]
    else:
        with progress.hush():
            offer = offer_for(task, graph, *quantizers(baked.shop))
        offered = candidates(target, baked.shop.runtime, offer)
        notes.extend(offer.why_not)
    return _Prepared(baked=baked, layers=layers, candidates=tuple(offered), notes=tuple(notes))


def _recipe(request: Request) -> Recipe | None:
    from edgekit.plan.recipe import load_recipe

    return load_recipe(request.recipe) if isinstance(request.recipe, Path) else request.recipe


def _target(request: Request, recipe: Recipe | None) -> tuple[Target, tuple[RuntimeName, ...]]:
    """The target, narrowed to the runtime that is asked for; and all runtimes that it lists.

    Raises:
        BadInput: no such target or limit, or the target has no such runtime.
    """
    from edgekit.shipping import refuse_offline

    target = load_target(request.target)
    target.with_limits(request.limits, COMMAND_LINE)  # refused before the task is loaded, not after
    if request.offline:
        refuse_offline(target)
    asked, others = request.runtime, target.runtimes
    if recipe and recipe.runtime:
        if asked not in (None, recipe.runtime):
            what = f"the recipe is for {recipe.runtime}, `--runtime` says {asked}"
            raise BadInput(what, where=COMMAND_LINE, todo="leave one of them out")
        asked = recipe.runtime
    return (target.with_runtimes([asked]) if asked else target), others


def _search(prepared: _Prepared) -> Found:
    from edgekit.measure import build_and_measure
    from edgekit.plan.search import search

    shop, baked = prepared.baked.shop, prepared.baked
    target = shop.target

    def realise(candidate: Candidate) -> Tried:
        # The bake-off has measured the network as it is.
        asked = candidate.recipe.threads
        if not candidate.recipe.steps and asked in (None, shop.threads):
            return baked.unchanged
        return build_and_measure(shop, candidate)

    return search(
        prepared.candidates,
        target.budget,
        foresee=lambda candidate: _foresee(prepared, candidate),
        realise=realise,
        on_device=target.local,
    )


def _foresee(prepared: _Prepared, candidate: Candidate) -> Cost:
    from edgekit.plan.candidates import foresee

    shop = prepared.baked.shop
    profile = shop.target.profile
    return foresee(candidate, prepared.layers, profile, runtime=shop.runtime, threads=shop.threads)
