"""A build as JSON, for machines."""

from __future__ import annotations

import json

from edgekit.result import BuildResult, as_json

SCHEMA = "edgekit.build/1"


def build_json(result: BuildResult) -> str:
    """The whole result as one JSON object; "schema" names its layout, infinite numbers are null."""
    return json.dumps({"schema": SCHEMA, **as_json(result)}, indent=2, allow_nan=False)
