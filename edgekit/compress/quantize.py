"""The step `quantize`: integers, by whichever way of the runtime turns out best on this very network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx

from edgekit.alternate import compare_artifacts
from edgekit.artifact import Artifact, Converted
from edgekit.cache import DISK
from edgekit.compress.context import Context
from edgekit.compress.quantization.settings import Settings
from edgekit.compress.quantization.way import Way
from edgekit.compress.quantization.ways import possible_ways
from edgekit.errors import BadInput, EdgekitError, first_line
from edgekit.graph.prepare import is_quantized
from edgekit.result import Route
from edgekit.task.record import Task

SAME_SPEED = 0.95  # routes within this of the fastest count as equally fast: the more accurate one is kept

UNTIMED = ("tensorrt",)  # another runtime stands in for it here, whose speed says nothing of its own
LEAST_GAIN = 1.03  # below this an alternating run cannot tell faster from equally fast


@dataclass(frozen=True)
class Attempt:
    """A way that gave a working artifact, with its figures."""

    artifact: Artifact
    route: Route


class Quantize(Settings):
    """Quantization of weights, and of activations where the method says so, to integers."""

    level: ClassVar[Literal["network", "graph"]] = "graph"

    step: Literal["quantize"] = "quantize"

    def apply(self, converted: Converted, task: Task, context: Context) -> Artifact:
        """The quantized artifact of the best way.

        The best is the fastest whose quality loss is inside the limits of `context`, over all classes and for
        the worst one; among equally fast ones the most accurate. Every way is appended to `context.routes`.

        Raises:
            BadInput: the network is quantized already, or no way works; says why.
        """
        if is_quantized(onnx.load(converted.graph)):
            raise BadInput("it is quantized already and is left alone", where=f"the model of {task.name}")
        ways, reasons = possible_ways(converted, self, context)
        if not ways:
            raise BadInput("; ".join(reasons), where=f"quantize {task.name}")
        attempts, failed = self._attempt(ways, converted, task, context)
        if not attempts:
            context.routes.extend(failed)
            said = "; ".join(f"{route.name}: {route.reason}" for route in failed)
            raise BadInput(f"no way to quantize works: {said}", where=f"quantize {task.name}")
        best, routes = choose(
            _timed(converted.artifact, attempts, context),
            context.max_drop,
            context.most_bytes,
            max_class_drop=context.max_class_drop,
        )
        context.routes.extend([*routes, *failed])
        return best

    def _attempt(
        self, ways: Sequence[Way], converted: Converted, task: Task, context: Context
    ) -> tuple[list[Attempt], list[Route]]:
        attempts, failed = [], []
        for way in ways:
            context.detail(f"route {way.name}")
            try:
                attempts.append(self._try(way, converted, task, context))
            except OSError as error:
                if error.errno in DISK:
                    raise
                failed.append(Route(name=way.name, chosen=False, reason=f"fails: {first_line(error)}"))
            except EdgekitError as error:
                failed.append(Route(name=way.name, chosen=False, reason=error.what))
            except Exception as error:  # noqa: BLE001 - a way that fails is reported, the others go on
                failed.append(Route(name=way.name, chosen=False, reason=f"fails: {first_line(error)}"))
        return attempts, failed

    def _try(self, way: Way, converted: Converted, task: Task, context: Context) -> Attempt:
        folder = context.folder / way.name
        folder.mkdir()
        artifact = way.make(converted, self, task, context, folder)
        quality = context.measure(artifact.open())
        route = Route(
            name=way.name,
            chosen=False,
            reason="",
            size_ratio=converted.artifact.size_bytes / artifact.size_bytes,
            drop=quality.drop,
            class_drop=quality.class_drop,
            left_in_float=way.left_in_float(artifact) if way.left_in_float else None,
        )
        return Attempt(artifact, route)


def _timed(floats: Artifact, attempts: Sequence[Attempt], context: Context) -> list[Attempt]:
    """The attempts with their speed against the float artifact: one alternating run, one thread."""
    if floats.runtime in UNTIMED:
        return list(attempts)
    context.detail("timing the routes against float")
    artifacts = {"float32": floats, **{attempt.route.name: attempt.artifact for attempt in attempts}}
    figures = compare_artifacts(artifacts, context.calls[:8] or [context.example], threads=1)
    return [
        replace(a, route=replace(a.route, latency_ratio=1 / figures[a.route.name].ratio_to_first))
        for a in attempts
    ]


def choose(
    attempts: Sequence[Attempt],
    max_drop: float | None,
    most_bytes: float | None = None,
    *,
    max_class_drop: float | None = None,
) -> tuple[Artifact, list[Route]]:
    """The artifact to keep, and all routes with the reason why each was kept or not.

    Inside the limits of quality and size the fastest wins; within SAME_SPEED of it the one that loses least
    quality. When none there is faster than float, all that integers can give is size, and the smallest wins.
    When no route is small enough, the size is left out of account; when none loses little enough, the one
    that loses least is kept.
    """
    good = [
        a for a in attempts if _inside(a.route.drop, max_drop) and _inside(a.route.class_drop, max_class_drop)
    ]
    small = [a for a in good if most_bytes is None or a.artifact.size_bytes <= most_bytes]
    inside = small or good
    fastest = max((_speed(a) for a in inside), default=0.0)
    if fastest >= LEAST_GAIN:
        rivals = [a for a in inside if _speed(a) >= max(LEAST_GAIN, fastest * SAME_SPEED)]
        best = min(rivals, key=_loss_then_speed)
        why = f"fastest inside the quality {'limit' if inside == good else 'and size limits'}"
    elif inside:
        best = max(inside, key=lambda a: (a.route.size_ratio or 1.0, _speed(a)))
        smaller = (best.route.size_ratio or 1.0) > 1
        why = "smallest, no faster than float" if smaller else "neither faster nor smaller than float"
        if best.route.latency_ratio is None:
            why = "loses least of what fits; how fast it is, only the device can tell"
            best = min(inside, key=_loss_then_speed)
    else:
        best = min(attempts, key=_loss_then_speed)
        why = "loses least quality, yet more than the limit"
    routes = [
        replace(
            a.route,
            chosen=a is best,
            reason=why if a is best else _why_not(a, best, good=a in good, small=a in inside),
        )
        for a in attempts
    ]
    return best.artifact, routes


def _inside(loss: float | None, most: float | None) -> bool:
    return most is None or (loss or 0.0) <= most


def _speed(attempt: Attempt) -> float:
    return attempt.route.latency_ratio or 1.0


def _loss_then_speed(attempt: Attempt) -> tuple[float, float]:
    return attempt.route.drop or 0.0, -_speed(attempt)


def _why_not(attempt: Attempt, best: Attempt, *, good: bool, small: bool) -> str:
    if not good:
        return "loses more quality than the limit allows"
    if not small:
        return "larger than the limit allows"
    if _speed(best) < LEAST_GAIN:
        return "no faster than float, and larger than the one kept"
    if _speed(attempt) < max(LEAST_GAIN, _speed(best) * SAME_SPEED):
        return f"slower: {_speed(attempt):.2f}x of float against {_speed(best):.2f}x"
    return "equally fast, loses more quality"
