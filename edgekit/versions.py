"""Versions of the libraries that make an artifact: part of the cache keys, the manifest and the report."""

from __future__ import annotations

from functools import cache
from importlib import metadata

LIBRARIES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxslim",
    "openvino",
    "nncf",
    "litert-torch",
    "ai-edge-quantizer",
    "ai-edge-litert",
    "onnx2fx",
    "executorch",
    "torchao",
    "torch-pruning",
    "numpy",
)


@cache
def versions() -> dict[str, str]:
    """Installed versions by distribution name, edgekit's own included; a missing one is left out."""
    from edgekit import __version__

    found = {"edgekit": __version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
