"""Results as JSON, for machines: "schema" names the layout, infinite numbers are null."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgekit.graph.layers import Layer
from edgekit.result import BuildResult, as_json


def build_json(result: BuildResult) -> str:
    """The whole result of a build as one JSON object."""
    return _dump({"schema": "edgekit.build/1", **as_json(result)})


def plan_json(result: BuildResult, layers: Sequence[tuple[Layer, float]]) -> str:
    """A plan as one JSON object: nothing of it was built.

    Args:
        result: its candidates have predicted costs.
        layers: of the float network, each with its predicted time, milliseconds.
    """
    timed = [{**as_json(layer), "predicted_ms": time_ms} for layer, time_ms in layers]
    return _dump({"schema": "edgekit.plan/1", **as_json(result), "layers": timed})


def _dump(data: object) -> str:
    return json.dumps(data, indent=2, allow_nan=False)
