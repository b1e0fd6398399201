"""The whole program in one page: load, plan, compress, convert, verify, measure, package."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cost import judge, outcome
from edgekit.result import BuildResult, Tried
from edgekit.target import load_target
from edgekit.task.load import Given, load_task

if TYPE_CHECKING:
    from edgekit.graph.layers import Layer
    from edgekit.plan.candidates import Candidate, Offer
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

    def beside(self, result: BuildResult, suffix: str) -> Path:
        """A file that goes with the result but not into the bundle, whose digests it would change."""
        place = self.output or result.bundle or Path("dist") / "build"
        return place.with_name(place.name + suffix)


def plan(request: Request, progress: Progress) -> tuple[BuildResult, list[tuple[Layer, float]]]:
    """The candidates with their predicted cost, and the float network's layers with their predicted time, ms.

    Nothing is written but the cache.

    Raises:
        EdgekitError: as for `build`.
    """
    from edgekit.plan.candidates import foresee
    from edgekit.plan.cost_model import layer_times_ms
    from edgekit.plan.search import skip

    start = time.monotonic()
    shop, layers, offer, choice = _prepare(request, progress)
    target = shop.target
    tried = [skip(one, foresee(one, layers, target), target.budget, "") for one in choice]
    times = layer_times_ms(layers, target.profile, runtime=target.runtimes[0], threads=target.threads)
    result = _result(shop, offer, tuple(tried), None, None, start)
    return result, list(zip(layers, times, strict=True))


def build(request: Request, progress: Progress) -> BuildResult:
    """Find the mildest recipe that fits the target's budget, and write its bundle.

    When none fits, the nearest one is written, and the result says by how much it misses.

    Raises:
        BadInput: something that the user gave cannot be used.
        OutsideFailure: the disk is full, a package is missing.
        VerificationFailed: the converted float network does not compute what the network computes.
    """
    from edgekit.bundle.place import check_destination
    from edgekit.shipping import place_for, ship

    start = time.monotonic()
    shop, layers, offer, choice = _prepare(request, progress)
    place = request.output or place_for(shop)
    check_destination(place)
    found = _search(shop, layers, choice)
    bundle = None
    if found.shipped is not None:
        with progress.stage(f"package {found.tried[found.shipped].name}"):
            ship(shop, found.tried[found.shipped], place, archive=request.archive)
        bundle = place
    return _result(shop, offer, found.tried, found.shipped, bundle, start)


def _prepare(
    request: Request, progress: Progress
) -> tuple[Workshop, tuple[Layer, ...], Offer, list[Candidate]]:
    """Load task and target, convert the network as it is, and list what is worth trying."""
    from edgekit.graph.layers import describe
    from edgekit.plan.candidates import candidates, given_recipe, offer_for
    from edgekit.plan.recipe import Recipe, load_recipe
    from edgekit.realise import float_graph, open_shop

    target = load_target(request.target)
    target.with_limits(request.limits, COMMAND_LINE)  # refused before the task is loaded, not after
    recipe = load_recipe(request.recipe) if request.recipe else None
    with progress.stage(f"load {request.source}"):
        task = load_task(request.source, request.given)
    target = (target if task.evaluate else target.for_fidelity()).with_limits(request.limits, COMMAND_LINE)
    for note in task.notes:
        progress.warn(note)
    shop = open_shop(task, target, progress, use_cache=request.use_cache)
    baseline = float_graph(shop, Recipe())
    shop = replace(shop, baseline=baseline)
    graph = baseline.load()
    offer = offer_for(task, graph)
    choice = [given_recipe(recipe)] if recipe else candidates(target, offer)
    return shop, describe(graph, shop.example).layers, offer, choice


def _search(shop: Workshop, layers: tuple[Layer, ...], choice: list[Candidate]) -> Found:
    from edgekit.measure import realise
    from edgekit.plan.candidates import foresee
    from edgekit.plan.search import search

    return search(
        choice,
        shop.target.budget,
        foresee=lambda candidate: foresee(candidate, layers, shop.target),
        realise=lambda candidate: realise(shop, candidate),
        on_device=shop.target.local,
    )


def _result(
    shop: Workshop,
    offer: Offer,
    tried: tuple[Tried, ...],
    shipped: int | None,
    bundle: Path | None,
    start: float,
) -> BuildResult:
    from edgekit.plan.search import what_to_relax
    from edgekit.versions import versions

    target = shop.target
    nearest = tried[shipped] if shipped is not None else tried[0]
    verdicts = judge(nearest.cost, target.budget)
    return BuildResult(
        task=shop.task.name,
        target=target.name,
        profile=target.profile.name,
        runtime=target.runtimes[0],
        threads=nearest.recipe.get("threads", target.threads),
        budget=target.budget,
        tried=tried,
        shipped=shipped,
        outcome=nearest.outcome or outcome(verdicts),
        bundle=bundle,
        relax=what_to_relax(verdicts),
        warnings=(*shop.progress.warnings, *offer.why_not),
        reused=tuple(shop.cache.reused),
        versions=versions(),
        machine=shop.machine_words,
        seconds=time.monotonic() - start,
    )
