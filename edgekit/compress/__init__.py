"""Compression steps, one file each: parameters and `apply(model, task, context) -> model`.

A network step takes and gives a torch module, a graph step an ONNX model. None changes the model it is given.

The package is also the Python API: `from edgekit.compress import Prune, Quantize`, and
`edgekit.compress(model, [Prune(ratio=0.5), Quantize()], task)`, which is `edgekit.api.compress`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.compress.depth import Depth
    from edgekit.compress.distill import Distill, Finetune
    from edgekit.compress.factorize import Factorize
    from edgekit.compress.fuse import Fuse
    from edgekit.compress.half import Half
    from edgekit.compress.prune import Prune
    from edgekit.compress.quantize import Quantize
    from edgekit.compress.saved.persist import load_network, save_network
    from edgekit.compress.sparsify import Sparsify

__all__ = [
    "Depth",
    "Distill",
    "Factorize",
    "Finetune",
    "Fuse",
    "Half",
    "Prune",
    "Quantize",
    "Sparsify",
    "load_network",
    "save_network",
]
_FILES = {"Finetune": "distill", "load_network": "saved.persist", "save_network": "saved.persist"}


def __getattr__(name: str) -> Any:
    """A step's class; its file is imported with its first use, for some of them take a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES.get(name, name.lower())}"), name)


class _Callable(ModuleType):
    """A module that can be called.

    The package has the name of the API's function, and importing any step puts the package in its place.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `edgekit.api.compress`, whose signature type checkers see."""
        from edgekit.api import compress

        return compress(*args, **kwargs)


# "Customizing module attribute access" in the Python language reference: a module's class may be set so.
sys.modules[__name__].__class__ = _Callable
