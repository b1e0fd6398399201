"""The step `quantize`: int8, by whichever route turns out best on this very network."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import onnx
from pydantic import BaseModel, ConfigDict, Field

from edgekit.alternate import compare_artifacts
from edgekit.compress.context import Context
from edgekit.compress.int8_routes import ROUTES, routes_for
from edgekit.errors import BadInput, EdgekitError, first_line
from edgekit.graph.fusion import count_float_nodes, count_integer_nodes, optimised
from edgekit.graph.prepare import is_quantized
from edgekit.graph.run import refuse_crash
from edgekit.result import Route
from edgekit.task.record import Task
from edgekit.verify import OPTIMISER_FLOOR_DB, check_graph

SAME_SPEED = 0.95  # routes within this of the fastest count as equally fast: the more accurate one is kept

LEAST_GAIN = 1.03  # below this an alternating run cannot tell faster from equally fast


@dataclass(frozen=True)
class Attempt:
    """A route that gave a working graph, with its figures."""

    model: onnx.ModelProto
    route: Route


class Quantize(BaseModel):
    """Post-training quantization of weights and activations to 8-bit integers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: ClassVar[Literal["network", "graph"]] = "graph"

    step: Literal["quantize"] = "quantize"
    route: Literal["auto", "nncf", "ort-static", "ort-dynamic"] = Field(
        "auto", description="`auto` tries every route that fits the network and keeps the best by its figures"
    )
    samples: int = Field(128, ge=1, le=512, description="calibration calls used, at most")

    def apply(self, model: onnx.ModelProto, task: Task, context: Context) -> onnx.ModelProto:
        """The int8 graph of the best route.

        The best route is the fastest whose quality loss is inside the limits of `context`, over all
        classes and for the worst one; among equally fast ones the most accurate. Every route is appended
        to `context.routes`.

        Raises:
            BadInput: the graph is quantized already, or no route works; says why.
        """
        if is_quantized(model):
            raise BadInput("it is quantized already and is left alone", where=f"the model of {task.name}")
        possible, why = routes_for(model, calibrated=bool(context.calls))
        names = possible if self.route == "auto" else [self.route]
        if not names:
            raise BadInput(why, where=f"quantize {task.name}")
        if self.route in ("nncf", "ort-static") and not context.calls:
            raise BadInput(
                f"route {self.route} needs calibration data",
                where=f"quantize {task.name}",
                todo="give --calibration, or use route ort-dynamic",
            )
        attempts, failed = self._attempt(names, model, context)
        if not attempts:
            context.routes.extend(failed)
            reasons = "; ".join(f"{route.name}: {route.reason}" for route in failed)
            raise BadInput(f"no int8 route works: {reasons}", where=f"quantize {task.name}")
        best, routes = choose(
            _timed(model, attempts, context),
            context.max_drop,
            context.most_bytes,
            max_class_drop=context.max_class_drop,
        )
        context.routes.extend([*routes, *failed])
        return best

    def _attempt(
        self, names: Sequence[str], model: onnx.ModelProto, context: Context
    ) -> tuple[list[Attempt], list[Route]]:
        attempts, failed = [], []
        for name in names:
            context.detail(f"route {name}")
            try:
                attempts.append(_try_route(name, model, context, self.samples))
            except EdgekitError as error:
                failed.append(Route(name=name, chosen=False, reason=error.what))
            except Exception as error:  # noqa: BLE001 - a route that fails is reported, the others go on
                failed.append(Route(name=name, chosen=False, reason=f"fails: {first_line(error)}"))
        return attempts, failed


def _try_route(name: str, model: onnx.ModelProto, context: Context, samples: int) -> Attempt:
    quantized = ROUTES[name](model, spread(context.calls, samples), reduce_range=context.reduce_range)
    quantized.ir_version = min(quantized.ir_version, model.ir_version)
    del quantized.graph.value_info[:]
    refuse_crash(quantized)
    runs = optimised(quantized)
    if not count_integer_nodes(runs):
        raise BadInput("nothing was quantized: no node computes on integers")
    calls = context.calls[:4]
    if calls:
        check_graph("optimiser off -> on", quantized, quantized, calls, OPTIMISER_FLOOR_DB)
    quality = context.measure(quantized)
    sizes = [graph.ByteSize() for graph in (model, quantized)]
    return Attempt(
        quantized,
        Route(
            name=name,
            chosen=False,
            reason="",
            size_ratio=sizes[0] / sizes[1],
            drop=quality.drop,
            class_drop=quality.class_drop,
            left_in_float=count_float_nodes(runs),
        ),
    )


def spread(calls: Sequence[Mapping[str, np.ndarray]], most: int) -> list[Mapping[str, np.ndarray]]:
    """At most `most` calls, evenly spread over all of them."""
    if len(calls) <= most:
        return list(calls)
    return [calls[index] for index in np.linspace(0, len(calls) - 1, most).astype(int)]


def _timed(model: onnx.ModelProto, attempts: Sequence[Attempt], context: Context) -> list[Attempt]:
    """The attempts with their speed against the float graph: one alternating run, one thread."""
    context.detail("timing the routes against float")
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        paths = {"float32": Path(folder) / "float32.onnx"}
        onnx.save(model, paths["float32"])
        for attempt in attempts:
            paths[attempt.route.name] = Path(folder) / f"{attempt.route.name}.onnx"
            onnx.save(attempt.model, paths[attempt.route.name])
        calls = context.calls[:8] or [context.example]
        figures = compare_artifacts(paths, [dict(call) for call in calls], threads=1)
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
) -> tuple[onnx.ModelProto, list[Route]]:
    """The graph to keep, and all routes with the reason why each was kept or not.

    Inside the limits of quality and size the fastest wins; within SAME_SPEED of it the one that loses least
    quality. When none there is faster than float, all that int8 can give is size, and the smallest wins. When
    no route is small enough, the size is left out of account; when none loses little enough, the one that
    loses least is kept.
    """
    good = [
        a for a in attempts if _inside(a.route.drop, max_drop) and _inside(a.route.class_drop, max_class_drop)
    ]
    small = [a for a in good if most_bytes is None or a.model.ByteSize() <= most_bytes]
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
    return best.model, routes


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
