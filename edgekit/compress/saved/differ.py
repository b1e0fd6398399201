"""What tells a compressed network from the one it was made of, and one made of the other again.

Three kinds of change are known: a layer that was narrowed or given a bias (`prune`, `fuse`), whatever its
class; layers in the place of one (`factorize`); an identity in the place of a module (`depth`, `fuse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekit.compress.saved.modules import (
    ARGUMENTS,
    CONTAINERS,
    WIDTHS,
    Described,
    base_of,
    built,
    described,
    described_whole,
    shown,
)
from edgekit.errors import BadInput

if TYPE_CHECKING:
    import torch

CODE = "bring the code that it was compressed with"


def modules_of(network: torch.nn.Module) -> dict[str, Described]:
    """All modules, under each of their names, the network itself under none."""
    return {name: described(module) for name, module in network.named_modules(remove_duplicate=False)}


def differences(original: torch.nn.Module, compressed: torch.nn.Module) -> dict[str, Described]:
    """The modules of `compressed` that are other ones, by name.

    Raises:
        BadInput: one differs in what is not known here.
    """
    found: dict[str, Described] = {}
    _compare("", original, compressed, found, {})
    return found


def _compare(
    name: str,
    old: torch.nn.Module,
    new: torch.nn.Module,
    found: dict[str, Described],
    seen: dict[torch.nn.Module, torch.nn.Module],
) -> None:
    if seen.setdefault(old, new) is not new:
        if modules_of(seen[old]) != modules_of(new) or any(True for _ in new.parameters()):
            raise BadInput("was one with another module and no longer is", where=shown(name))
        return
    before, after = described(old), described(new)
    same_class = _class_of(old) == _class_of(new)
    children, now = _children(old), _children(new)
    if same_class and set(children) == set(now) and before == after:
        for own, child in children.items():
            _compare(f"{name}.{own}" if name else own, child, now[own], found, seen)
    elif same_class and not children and not now and _is_resized(before, after):
        found[name] = after
    elif same_class and type(new).__name__ not in (*ARGUMENTS, *CONTAINERS):
        raise BadInput("holds other modules than before, or of other widths", where=shown(name))
    else:
        found[name] = described_whole(new, name)


def _children(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Under each of their names, unlike `named_children`."""
    return {name: child for name, child in module._modules.items() if child is not None}


def _class_of(module: torch.nn.Module) -> tuple[str, str]:
    """By name: each fx GraphModule has a class of its own."""
    return type(module).__module__, type(module).__qualname__


def _is_resized(before: Described, after: Described) -> bool:
    """Whether the same layer has other widths, or a bias; no more than that."""
    differing = {name for name, value in before.arguments.items() if after.arguments.get(name) != value}
    same = before.type == after.type and set(before.arguments) == set(after.arguments)
    return same and bool(differing) and differing <= WIDTHS


def check_code(code: Mapping[str, Described], fresh: torch.nn.Module) -> None:
    """See that a network is made of the modules that another was made of.

    Raises:
        BadInput: names the first module that it is not.
    """
    here = modules_of(fresh)
    for name, was in code.items():
        if name not in here:
            raise BadInput(f"this code makes no such module (a {was.type})", where=shown(name), todo=CODE)
        now = here[name]
        if now.type != was.type:
            what = f"this code makes a {now.type} of it, it was a {was.type}"
            raise BadInput(what, where=shown(name), todo=CODE)
        for key in sorted({*was.arguments, *now.arguments}):
            one, other = now.arguments.get(key), was.arguments.get(key)
            if one != other:
                what = f"this code gives it {key}={one}, it had {key}={other}"
                raise BadInput(what, where=shown(name), todo=CODE)
    more = next((name for name in here if name not in code), None)
    if more is not None:
        what = f"this code makes this {here[more].type}, which was not there"
        raise BadInput(what, where=shown(more), todo=CODE)


def applied(network: torch.nn.Module, changed: Mapping[str, Described]) -> torch.nn.Module:
    """The network with other modules where it differs, these without storage; it is changed in place.

    Raises:
        BadInput: a change cannot be made; the module is named.
    """
    for name, description in changed.items():
        try:
            old = network.get_submodule(name)
            if _is_resized(described(old), description):
                _resize(old, description)
                continue
            new = built(description)
        except AttributeError as error:
            raise BadInput("there is no such module to change", where=shown(name)) from error
        except BadInput as error:
            raise BadInput(error.what, where=shown(name)) from error
        if old is network:
            return new
        for place, module in list(network.named_modules(remove_duplicate=False)):
            if module is old:
                parent, _, own = place.rpartition(".")
                setattr(network.get_submodule(parent), own, new)
    return network


def _resize(layer: Any, description: Described) -> None:
    """Give a layer other widths: its own forward function stays, its tensors lose their storage."""
    base = base_of(layer)
    if base is None:
        raise BadInput(f"a {description.type} has no widths")
    template: Any = built(Described(type=base, arguments=description.arguments))
    for name in set(description.arguments) & WIDTHS - {"bias"}:
        setattr(layer, name, getattr(template, name))
    for name, tensor in (*template._parameters.items(), *template._buffers.items()):
        if name not in layer._parameters and name not in layer._buffers:
            raise BadInput(f"its {name} is computed, which no file can hold")
        setattr(layer, name, tensor)
