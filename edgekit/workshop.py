"""What all candidates of one build share: the task, the target, this machine, and what was made so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgekit.artifact import Artifact, Run, RuntimeName
from edgekit.cache import Cache, default_root
from edgekit.errors import count
from edgekit.ondevice.runner.facts import gather
from edgekit.progress import Progress
from edgekit.result import Parity, Quality, StepReport
from edgekit.task.quality import Original, judge_original, measure_quality

if TYPE_CHECKING:
    import torch

    from edgekit.target import Target
    from edgekit.task.record import Task

Call = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all candidates of one build share.

    Attributes:
        calls: calibration calls by input name; empty when there is no calibration data.
        example: the deployed call by input name.
        machine: fingerprint of this machine, on which routes are timed; `machine_words` names it.
        runtime, threads: what executes the candidates, and with how many threads.
        baseline: the float graph of the task's own network, once it has been made.
        least_speedup: how many times faster than the float network the latency limits ask for; None where
            it keeps them.
        floats: its artifact for `runtime`, that the others are compared with, once it has been made.
        artifacts: of the candidates by name, filled as they are built.
        networks: torch networks after network steps, by these steps: kept while the build lasts.
        reports: what these steps did, under the same keys.
        originals: what the float network does on the task, once it has been judged; shared by all runtimes.
    """

    task: Task
    target: Target
    calls: tuple[Call, ...]
    example: Call
    machine: str
    machine_words: str
    cache: Cache
    progress: Progress
    runtime: RuntimeName
    threads: int
    baseline: Graph | None = None
    floats: Artifact | None = None
    least_speedup: float | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    networks: dict[str, torch.nn.Module | onnx.ModelProto] = field(default_factory=dict)
    reports: dict[str, tuple[StepReport, ...]] = field(default_factory=dict)
    originals: list[Original] = field(default_factory=list)

    @property
    def real_calls(self) -> tuple[Call, ...]:
        """Real inputs to compare stages on: the calibration data, else the example."""
        return self.calls or (self.example,)

    @property
    def original(self) -> Original:
        """How good the float network is on the task; judged once, and only when something needs it."""
        if not self.originals:
            self.originals.append(judge_original(self.interface, self.task))
        return self.originals[0]

    @property
    def interface(self) -> onnx.ModelProto:
        """The float graph of the task's own network."""
        if self.baseline is None:
            raise ValueError("there is no float graph yet")
        return self.baseline.load()

    def measure(self, run: Run) -> Quality:
        """The quality on the task of what a function computes, against the float network's."""
        return measure_quality(run, self.task, self.original)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A float ONNX graph in the cache, and how close it is to the network.

    Attributes:
        notes: what the conversion had to do.
        reports: what the network steps before it did.
    """

    path: Path
    parities: tuple[Parity, ...] = ()
    notes: tuple[str, ...] = ()
    reports: tuple[StepReport, ...] = ()

    def load(self) -> onnx.ModelProto:
        """The graph itself."""
        return onnx.load(self.path)


def open_shop(task: Task, target: Target, progress: Progress, *, use_cache: bool) -> Workshop:
    """The workshop of one build, on this machine, for the first of the target's runtimes."""
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
        runtime=target.runtimes[0],
        threads=target.threads,
    )
