"""One way of quantizing for one runtime: what it is called, whether it fits, and what it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit.artifact import Artifact, Converted, RuntimeName
from edgekit.compress.context import Context
from edgekit.compress.quantization.settings import Method, Settings
from edgekit.task.record import Task


@dataclass(frozen=True, kw_only=True)
class Way:
    """A library's recipe for a quantized artifact.

    Attributes:
        name: as reports and recipes call it: "nncf", "ort-static", "aeq-dynamic".
        method: what kind of quantization it is.
        why_not: in words, why this network or these settings are not for it; empty where they are.
        make: the quantized artifact, written into the folder, which is empty and the way's own. Raises
            BadInput where the library fails on this network; any other exception is reported as a failure of
            the way, and the other ways go on.
        left_in_float: how many convolutions and matrix products the runtime still computes in float; None
            where it does not show.
        by_itself: whether it is tried without being asked for by its method or name; one that trains, or
            ranks all layers, takes minutes and is not.
    """

    name: str
    runtime: RuntimeName
    method: Method
    why_not: Callable[[Converted, Settings, Context], str]
    make: Callable[[Converted, Settings, Task, Context, Path], Artifact]
    left_in_float: Callable[[Artifact], int] | None = None
    by_itself: bool = True
