"""Results as JSON, for machines: "schema" names the layout, infinite numbers are null."""

from __future__ import annotations

import json

from edgekit.result import BuildResult, Plan, as_json


def build_json(result: BuildResult) -> str:
    """The whole result of a build as one JSON object."""
    return _dump({"schema": "edgekit.build/1", **as_json(result)})


def plan_json(plan: Plan) -> str:
    """A plan as one JSON object; each layer has its `predicted_ms`."""
    timed = [{**as_json(layer), "predicted_ms": time_ms} for layer, time_ms in plan.layers]
    return _dump({"schema": "edgekit.plan/1", **as_json(plan), "layers": timed})


def _dump(data: object) -> str:
    return json.dumps(data, indent=2, allow_nan=False)
