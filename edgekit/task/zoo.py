"""Networks by name from timm and torchvision, where those packages are installed."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgekit.errors import BadInput, OutsideFailure, first_line
from edgekit.near import nearest
from edgekit.task.record import Loaded

if TYPE_CHECKING:
    import torch

ZOOS = ("timm", "torchvision")
SEED = 0


def is_zoo_name(source: str) -> bool:
    """Whether a source has the form `timm/NAME` or `torchvision/NAME`."""
    zoo, slash, name = source.partition("/")
    return zoo in ZOOS and bool(slash) and bool(name)


def load_zoo(source: str) -> Loaded:
    """A network of timm or torchvision, pretrained; with random weights, said so, where there are no others.

    Raises:
        OutsideFailure: the package is missing or cannot be imported.
        BadInput: it has no network of that name.
    """
    zoo, _, name = source.partition("/")
    if zoo == "timm":
        return _load_timm(name, _import_zoo("timm", "timm"))
    return _load_torchvision(name, _import_zoo("torchvision", "torchvision.models"))


def _import_zoo(package: str, module: str) -> ModuleType:
    """Import a zoo's module; whatever goes wrong in it is somebody else's package."""
    if importlib.util.find_spec(package) is None:
        raise OutsideFailure(f"{package} is not installed", todo=f"`pip install {package}`")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise OutsideFailure(
            f"{package} needs {missing}, which is not installed", todo=f"`pip install {missing}`"
        ) from error
    except Exception as error:
        raise OutsideFailure(
            f"{package} cannot be imported here: {type(error).__name__}: {first_line(error)}",
            todo=f"`pip install --upgrade {package}` to the version made for this torch",
        ) from error


def _load_timm(name: str, timm: ModuleType) -> Loaded:
    base = name.partition(".")[0]
    if not timm.is_model(base):
        raise _unknown("timm", name, timm.list_models())
    model, note = _with_weights(
        f"timm/{name}", lambda pretrained: timm.create_model(name, pretrained=pretrained)
    )
    config: Any = model.pretrained_cfg or model.default_cfg
    shape = config.get("input_size")
    return Loaded(model=model, usual_shape=(1, *shape) if shape else None, notes=note)


def _load_torchvision(name: str, models: ModuleType) -> Loaded:
    if name not in models.list_models():
        raise _unknown("torchvision", name, models.list_models())
    weights = models.get_model_weights(name).DEFAULT
    model, note = _with_weights(
        f"torchvision/{name}",
        lambda pretrained: models.get_model(name, weights=weights if pretrained else None),
    )
    crop = getattr(weights.transforms(), "crop_size", None)
    side = crop[0] if isinstance(crop, list | tuple) and len(crop) == 1 else None
    return Loaded(model=model, usual_shape=(1, 3, side, side) if side else None, notes=note)


def _with_weights(source: str, create: Any) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The network with pretrained weights, else with random ones from a fixed seed and a note."""
    import torch

    try:
        return create(True), ()
    except Exception as error:  # noqa: BLE001 - no network, no such weights, a full disk: said in the note
        reason = f"{type(error).__name__}: {first_line(error, 100)}"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        model = create(False)
    note = (
        f"{source} has RANDOM WEIGHTS: the pretrained ones cannot be had ({reason}); "
        "sizes and times are true, accuracy means nothing"
    )
    return model, (note,)


def _unknown(zoo: str, name: str, known: list[str]) -> BadInput:
    module = {"timm": "timm", "torchvision": "torchvision.models"}[zoo]
    listing = f"`python -c 'import {module}; print({module}.list_models())'` lists {len(known)}"
    todo = nearest(name, known) or listing
    return BadInput(f"{zoo} has no network `{name}`", where=f"{zoo}/{name}", todo=todo)
