"""Compare the speed of artifacts fairly on a machine that is never quiet: in turn, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from edgekit.artifact import Arrays, Artifact, Run

Calls = Sequence[Arrays]

CHUNK_S = 0.015  # long against the switch to another artifact, short against the machine's changes of mood
EACH_S = 1.5  # measured for each artifact, where LEAST_ROUNDS do not ask for more
LEAST_ROUNDS = 20
PATIENCE_S = 60.0  # a comparison that would take longer makes do with FEWEST_ROUNDS
FEWEST_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How fast one artifact is beside the others.

    Attributes:
        p50_ms: median time of one call.
        ratio_to_first: median over the rounds of its time over the first artifact's, by the wall clock.
        cpu_ratio_to_first: the same in CPU time of the process, which other programs disturb less.
        rounds: how many rounds there were.
    """

    p50_ms: float
    ratio_to_first: float
    cpu_ratio_to_first: float
    rounds: int


@dataclass(frozen=True)
class _Chunk:
    """Seconds per call in one chunk."""

    wall: float
    cpu: float


def compare_artifacts(
    artifacts: Mapping[str, Artifact], calls: Calls, *, threads: int
) -> dict[str, Compared]:
    """Run artifacts, of one runtime or several, in turn and compare them; see `compare_runs`.

    Args:
        artifacts: by name; the first is the one that the others are compared with.
        calls: inputs by name, used in turn.
        threads: threads that one inference may use.

    Raises:
        BadInput: an artifact cannot be opened or does not run on these calls.
        OutsideFailure: a runtime is not installed here.
    """
    return compare_runs({name: one.open(threads=threads) for name, one in artifacts.items()}, calls)


def compare_runs(runs: Mapping[str, Run], calls: Calls) -> dict[str, Compared]:
    """Run functions in short alternating chunks and compare their speed round by round.

    In every round each runs one chunk of the same calls, in shuffled order, so that whatever slows the
    machine slows them all; the ratio to the first is taken within the round.

    Args:
        runs: by name; the first is the one that the others are compared with.
        calls: inputs by name, used in turn.

    Raises:
        BadInput: one does not run on these calls.
    """
    for run in runs.values():
        run(calls[0])
    pace = {name: _pace(run, calls) for name, run in runs.items()}
    counts = {name: max(1, round(CHUNK_S / seconds)) for name, seconds in pace.items()}
    chunks: dict[str, list[_Chunk]] = {name: [] for name in runs}
    random, order = np.random.default_rng(0), list(runs)
    for _ in range(_rounds(sum(counts[name] * pace[name] for name in runs), len(runs))):
        random.shuffle(order)
        for name in order:
            chunks[name].append(_run_chunk(runs[name], calls, counts[name]))
    first = chunks[next(iter(runs))]
    return {name: _compared(own, first) for name, own in chunks.items()}


def _pace(run: Run, calls: Calls) -> float:
    """Seconds that one call takes, after enough calls to be warm."""
    until, times = time.perf_counter() + 0.1, []
    for call in cycle(calls):
        start = time.perf_counter()
        run(call)
        times.append(time.perf_counter() - start)
        if times[-1] + start > until:
            break
    return max(min(times), 1e-6)


def _rounds(round_s: float, artifacts: int) -> int:
    rounds = max(LEAST_ROUNDS, round(EACH_S * artifacts / round_s))
    return min(rounds, max(FEWEST_ROUNDS, int(PATIENCE_S / round_s)))


def _run_chunk(run: Run, calls: Calls, count: int) -> _Chunk:
    if count > 1:
        run(calls[0])  # untimed: brings weights and code back into the caches
    wall, cpu = time.perf_counter(), time.process_time()
    for call in islice(cycle(calls), count):
        run(call)
    return _Chunk((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def _compared(own: Sequence[_Chunk], first: Sequence[_Chunk]) -> Compared:
    pairs = list(zip(own, first, strict=True))
    return Compared(
        p50_ms=statistics.median(chunk.wall for chunk in own) * 1000,
        ratio_to_first=statistics.median(a.wall / b.wall for a, b in pairs),
        cpu_ratio_to_first=statistics.median(a.cpu / b.cpu for a, b in pairs if b.cpu > 0),
        rounds=len(own),
    )
