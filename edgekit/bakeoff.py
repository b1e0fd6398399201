"""Which runtime, and how many threads: decided by figures of the float network before it is compressed.

On one board the same float network differs by a factor of 4 to 7 between runtimes, more than most
compression gives. So each of the target's runtimes takes it, is checked, and is measured where this
machine is the target, else predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.alternate import compare_runs
from edgekit.artifact import RuntimeName
from edgekit.cost import Cost, judge
from edgekit.errors import BadInput, EdgekitError, OutsideFailure, VerificationFailed, count
from edgekit.graph.layers import Layer
from edgekit.measure import COMPARED_CALLS, build_and_measure
from edgekit.plan.candidates import Candidate
from edgekit.plan.cost_model import predict
from edgekit.plan.recipe import Recipe
from edgekit.realise import converted, float_graph
from edgekit.result import Rival, Tried
from edgekit.runtimes.convert import installed
from edgekit.workshop import Workshop

SAME_SPEED = 1.1  # times that differ by less are no reason to leave the target's order of preference


@dataclass(frozen=True)
class Entry:
    """A runtime that took the float network.

    Attributes:
        times_ms: by number of threads, of one call; empty where there is neither measurement nor prediction.
    """

    shop: Workshop
    tried: Tried
    times_ms: Mapping[int, float]

    @property
    def runtime(self) -> RuntimeName:
        """Whose artifact it is."""
        return self.shop.runtime

    @property
    def threads(self) -> int:
        """The fewest threads that are as fast as the best number of them."""
        return _fewest(self.times_ms) or self.shop.threads

    @property
    def time_ms(self) -> float | None:
        """Of one call with `threads`."""
        return self.times_ms.get(self.threads)


@dataclass(frozen=True)
class Outcome:
    """What the bake-off came to.

    Attributes:
        shop: the workshop of the chosen runtime and threads.
        unchanged: the float network there, built and measured.
        rivals: every runtime of the target, in its order.
    """

    shop: Workshop
    unchanged: Tried
    rivals: tuple[Rival, ...]


def bake_off(
    shop: Workshop, unchanged: Candidate, layers: Sequence[Layer], others: Sequence[RuntimeName] = ()
) -> Outcome:
    """Convert the float network for each of the target's runtimes, and choose one by its figures.

    Args:
        shop: with the float graph.
        unchanged: the candidate of the network as it is.
        layers: of the float graph.
        others: runtimes to name in the refusal where they can do what the one asked for cannot.

    Raises:
        EdgekitError: no runtime takes the network; the reason of the first, and which other runtimes can.
    """
    entries: list[Entry] = []
    failed: dict[RuntimeName, EdgekitError] = {}
    for runtime in shop.target.runtimes:
        try:
            entries.append(_enter(replace(shop, runtime=runtime, artifacts={}), unchanged, layers))
        except (BadInput, VerificationFailed, OutsideFailure) as error:
            failed[runtime] = error
    if not entries:
        raise _nobody(shop, failed, others)
    if shop.target.local:
        entries = _in_turns(entries)
    chosen = _choose(entries, shop)
    if chosen.threads != chosen.shop.threads:  # its figures are those of other threads
        used = replace(chosen.shop, threads=chosen.threads)
        chosen = replace(chosen, shop=used, tried=build_and_measure(used, unchanged))
    by_name = {**{entry.runtime: entry for entry in entries}, chosen.runtime: chosen}
    rivals = tuple(
        _rival(by_name[name], chosen, shop)
        if name in by_name
        else Rival(runtime=name, chosen=False, reason=f"not tried: {failed[name]}")
        for name in shop.target.runtimes
    )
    needed = _least_speedup(chosen.tried.cost, shop.target.budget)
    return Outcome(shop=replace(chosen.shop, least_speedup=needed), unchanged=chosen.tried, rivals=rivals)


def _enter(shop: Workshop, unchanged: Candidate, layers: Sequence[Layer]) -> Entry:
    """The float network in one runtime, with its figures."""
    with shop.progress.hush():
        lacking = installed(shop.runtime)
    if lacking:
        raise lacking
    target, times = shop.target, {}
    for threads in sorted({1, target.threads}):
        foreseen = predict(layers, target.profile, runtime=shop.runtime, threads=threads).latency_p50_ms
        if foreseen is not None:
            times[threads] = foreseen.value
    if not target.local:  # else the times that are measured in turns decide
        shop = replace(shop, threads=_fewest(times) or shop.threads)
    tried = build_and_measure(shop, unchanged)
    return Entry(replace(shop, floats=shop.artifacts[unchanged.name]), tried, times)


def _fewest(times_ms: Mapping[int, float]) -> int | None:
    """The fewest threads that are as fast as the best number of them; None where no time is known."""
    best = min(times_ms.values(), default=0.0)
    return min((n for n, time in times_ms.items() if time <= best * SAME_SPEED), default=None)


def _in_turns(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with their times on this machine, in one alternating run over all of them."""
    shop = entries[0].shop
    with shop.progress.stage("compare the runtimes, in turns"):
        runs = {
            (entry.runtime, threads): entry.shop.artifacts[entry.tried.name].open(threads=threads)
            for entry in entries
            for threads in sorted({1, shop.target.threads})
        }
        named = {f"{runtime} {threads}": run for (runtime, threads), run in runs.items()}
        found = compare_runs(named, shop.real_calls[:COMPARED_CALLS])
    return [
        replace(
            entry,
            times_ms={
                threads: found[f"{runtime} {threads}"].p50_ms
                for runtime, threads in runs
                if runtime == entry.runtime
            },
        )
        for entry in entries
    ]


def _choose(entries: Sequence[Entry], shop: Workshop) -> Entry:
    """The fastest whose memory fits; among equally fast ones, and where nothing is known, the first."""
    fitting = [entry for entry in entries if not _too_large(entry, shop)] or list(entries)
    timed = [entry for entry in fitting if entry.time_ms is not None]
    if not timed:
        return fitting[0]
    best = min(entry.time_ms or 0.0 for entry in timed)
    return next(entry for entry in timed if (entry.time_ms or 0.0) <= best * SAME_SPEED)


def _least_speedup(float_cost: Cost, budget: Cost) -> float | None:
    """How many times faster than the float network the latency limits ask for; None where it keeps them."""
    costs = dict(float_cost.known())
    ratios = [
        costs[name].value / limit.value
        for name, limit in budget.known()
        if name.startswith("latency") and name in costs
    ]
    most = max(ratios, default=1.0)
    return most if most > 1 else None


def _too_large(entry: Entry, shop: Workshop) -> bool:
    """Whether the runtime surely misses the memory limit: much of it is its own, which no step shrinks."""
    memory = Cost(peak_memory_mb=entry.tried.cost.peak_memory_mb)
    verdicts = judge(memory, Cost(peak_memory_mb=shop.target.budget.peak_memory_mb))
    return any(verdict.status == "NOT MET" for verdict in verdicts)


def _rival(entry: Entry, chosen: Entry, shop: Workshop) -> Rival:
    ratio = entry.time_ms / chosen.time_ms if entry.time_ms and chosen.time_ms else None
    parities = [parity for parity in entry.tried.parities if parity.stage.startswith("onnx -> ")]
    return Rival(
        runtime=entry.runtime,
        threads=entry.threads,
        chosen=entry is chosen,
        reason=_reason(entry, chosen, shop, ratio),
        cost=entry.tried.cost,
        here=entry.tried.here,
        parity=parities[0] if parities else None,
        ratio=ratio,
    )


def _reason(entry: Entry, chosen: Entry, shop: Workshop, ratio: float | None) -> str:
    how = "measured in turns" if shop.target.local else "predicted"
    used = count(entry.threads, "thread")
    if len(shop.target.runtimes) == 1:
        return f"the only one asked for; {used}"
    if entry is chosen:
        over = "; none keeps the memory limit" if _too_large(entry, shop) else ""
        return (
            f"fastest with {used}, {how}" if entry.time_ms else "first of the target's that takes it"
        ) + over
    if _too_large(entry, shop) and not _too_large(chosen, shop):
        return "needs more memory than the limit"
    if ratio is None:
        where = shop.target.profile.name
        return f"nothing foretells its latency on {where}: `--runtime {entry.runtime}`, and measure it there"
    if ratio < SAME_SPEED:
        return f"as fast as {chosen.runtime} ({how}), which the target prefers"
    return f"{ratio:.2f} times the time of {chosen.runtime}, {how}"


def _nobody(
    shop: Workshop, failed: Mapping[RuntimeName, EdgekitError], others: Sequence[RuntimeName]
) -> EdgekitError:
    """The refusal of the only, or the first, runtime; with those that can where one was forced."""
    error = next(iter(failed.values()))
    left = [name for name in others if name not in failed and installed(name) is None]
    able = [name for name in left if _takes(replace(shop, runtime=name))]
    if not able:
        return error
    own = (
        None if (error.todo or "").startswith("take another runtime") else error.todo
    )  # a converter knows no target
    hint = f"`--runtime {able[0]}` can"
    return type(error)(error.what, where=error.where, todo="; ".join(filter(None, (own, hint))))


def _takes(shop: Workshop) -> bool:
    try:
        converted(shop, float_graph(shop, Recipe()), Recipe())
    except EdgekitError:
        return False
    return True
