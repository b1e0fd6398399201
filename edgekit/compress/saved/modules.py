"""The layers that a saved network may describe: their arguments, and the layers built of these again.

A description is data from elsewhere, so only what stands here is ever built, and without storage (torch's
meta device): a weight takes no memory before the file that holds its values has been checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from edgekit.errors import BadInput, first_line

if TYPE_CHECKING:
    import torch

Name = Annotated[str, StringConstraints(max_length=500)]
Number = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Value = bool | Number | float | Annotated[str, StringConstraints(max_length=50)] | tuple[Number, ...] | None

_CONV = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"),
    *("groups", "bias", "padding_mode"),
)
# Not the momentum, which says nothing of what a network computes and is often set after it is made.
_NORM = ("num_features", "eps", "affine", "track_running_stats", "bias")
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **{f"Conv{axes}d": _CONV for axes in (1, 2, 3)},
    **{f"ConvTranspose{axes}d": (*_CONV, "output_padding") for axes in (1, 2, 3)},
    **{f"BatchNorm{axes}d": _NORM for axes in (1, 2, 3)},
    **{f"InstanceNorm{axes}d": _NORM for axes in (1, 2, 3)},
    "Linear": ("in_features", "out_features", "bias"),
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine", "bias"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine", "bias"),
    "PReLU": ("num_parameters",),
    "Embedding": (
        *("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type"),
        *("scale_grad_by_freq", "sparse"),
    ),
    "Identity": (),
}
CONTAINERS = ("Sequential", "Levels")  # Levels: two paths, added (low_rank/levels.py)
# Arguments that a layer of the user's own class may be given in place, as pruning and folding do it.
WIDTHS = frozenset(
    "in_channels out_channels groups in_features out_features num_features num_channels num_groups "
    "normalized_shape num_parameters embedding_dim bias".split()
)


class Described(BaseModel):
    """A module as data.

    Attributes:
        type: the name of its class.
        arguments: what its class, or the class of torch that it derives from, was made with.
        inside: the modules of a container, in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    type: Name
    arguments: dict[Name, Value] = {}
    inside: dict[Name, Described] = {}


def described(module: torch.nn.Module) -> Described:
    """A module without what is inside it; one of another kind by the name of its class alone."""
    base = base_of(module)
    arguments = {} if base is None else {name: _argument(module, name) for name in ARGUMENTS[base]}
    return Described(type=type(module).__name__, arguments=arguments)


def base_of(module: torch.nn.Module) -> str | None:
    """The class of torch with known arguments that a module is, or derives from; None where it does not."""
    import torch

    for kind in type(module).__mro__:
        if kind.__name__ in ARGUMENTS and kind is getattr(torch.nn, kind.__name__):
            return str(kind.__name__)
    return None


def described_whole(module: torch.nn.Module, name: str) -> Described:
    """A module that can be built of its description alone.

    Args:
        module: of torch's or edgekit's own layers.
        name: of it in the network, for the line of a refusal.

    Raises:
        BadInput: it is another module, or holds one.
    """
    if type(module) not in _types().values():
        raise BadInput(f"a {type(module).__name__} is no layer that can be saved as data", where=shown(name))
    inside = {own: described_whole(child, f"{name}.{own}") for own, child in module.named_children()}
    return described(module).model_copy(update={"inside": inside})


def built(description: Described) -> torch.nn.Module:
    """The module of a description, without storage.

    Raises:
        BadInput: it is none of torch's or edgekit's own layers, or its arguments do not make one.
    """
    import torch

    kind, given = description.type, description.arguments
    if kind not in _types():
        raise BadInput(f"a saved network holds no {kind}")
    if set(given) != set(ARGUMENTS.get(kind, ())):
        raise BadInput(f"a {kind} has the arguments {', '.join(ARGUMENTS.get(kind, ())) or 'of its inside'}")
    inside = {name: built(one) for name, one in description.inside.items()}
    if inside and kind not in CONTAINERS:
        raise BadInput(f"a {kind} holds no other modules")
    try:
        with torch.device("meta"):
            if kind == "Sequential":
                made: torch.nn.Module = torch.nn.Sequential()
                for name, module in inside.items():
                    made.add_module(name, module)
                return made
            made = _types()[kind](**(inside or given))
    except Exception as error:
        raise BadInput(f"the arguments make no {kind}: {first_line(error)}") from error
    return made


def shown(name: str) -> str:
    """A module's name in the line of a refusal."""
    return f"`{name}`" if name else "the network itself"


def _types() -> dict[str, Any]:
    import torch

    from edgekit.compress.low_rank.levels import Levels

    plain = {name: getattr(torch.nn, name) for name in ARGUMENTS}
    return {**plain, "Sequential": torch.nn.Sequential, "Levels": Levels}


def _argument(module: Any, name: str) -> Value:
    """What a layer was made with; torch keeps it under the same name, of `bias` its values."""
    value = getattr(module, name)
    if name == "bias":
        return value is not None
    if isinstance(value, tuple | list):
        return tuple(map(int, value))
    return value if value is None or isinstance(value, bool | str | float) else int(value)
