"""edgekit takes a trained network and a device, and gives back a bundle that runs there inside its budget."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time it is the package of that name, which can be called
    from edgekit.api import compress as compress

__version__ = "0.1.0"

# NNCF and OpenVINO would report to their makers over the network, the latter as soon as it is imported.
os.environ.setdefault("NNCF_CI", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # its import then fails


def __getattr__(name: str) -> Any:
    """`edgekit.compress` with nothing but `import edgekit`."""
    if name == "compress":
        return importlib.import_module("edgekit.compress")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
