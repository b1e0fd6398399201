"""edgekit takes a trained network and a device, and gives back a bundle that runs there inside its budget."""

import os
import sys

__version__ = "0.1.0"

# NNCF and OpenVINO would report to their makers over the network, the latter as soon as it is imported.
os.environ.setdefault("NNCF_CI", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # its import then fails
