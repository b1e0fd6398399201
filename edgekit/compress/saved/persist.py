"""A compressed network without pickle: how it differs from what the user's code makes, and its weights.

    network.json         the modules that the code makes, those that differ, the digest of the weights
    weights.safetensors  all parameters and buffers, each tensor once

Whoever loads it brings a network fresh from the same code; nothing in the files is executed.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

import edgekit
from edgekit.compress.saved.differ import CODE, applied, check_code, differences, modules_of
from edgekit.compress.saved.modules import Described, Name
from edgekit.errors import BadInput, first_line
from edgekit.files import folder_written_whole

if TYPE_CHECKING:
    import torch

FILE, WEIGHTS = "network.json", "weights.safetensors"
MOST_JSON, MOST_WEIGHTS = 32_000_000, 2**33  # bytes
Size = Annotated[int, Field(ge=0, lt=2**40)]


class Tensor(BaseModel):
    """The shape and type of a parameter or buffer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[Size, ...]
    dtype: Annotated[str, StringConstraints(max_length=20)]


class Record(BaseModel):
    """What stands in `network.json`.

    Attributes:
        edgekit: the version that wrote it.
        weights: SHA-256 of the file of the weights.
        code: every module that the user's code makes, by name.
        changed: those in whose place the compressed network has other ones.
        tensors: parameters and buffers of other shape or type than these modules make.
        ties: parameters and buffers that are the same tensor as another, which the file holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    schema_: Literal["edgekit.network/1"] = Field(alias="schema")
    edgekit: Name
    weights: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    code: dict[Name, Described]
    changed: dict[Name, Described]
    tensors: dict[Name, Tensor] = {}
    ties: dict[Name, Name] = {}


def save_network(folder: Path, original: torch.nn.Module, compressed: torch.nn.Module) -> None:
    """Write a compressed network as its difference from the one it was made of, and its weights.

    Args:
        folder: is made; a network that was saved there before is replaced.
        original: as the user's code makes it.
        compressed: what network steps made of it.

    Raises:
        BadInput: they differ in what cannot be written as data; the module is named. Or something else lies
            in the folder.
        OutsideFailure: the disk is full, or the place cannot be written.
    """
    from safetensors.torch import save

    changed = differences(original, compressed)
    now = _state(compressed)
    made = _state(applied(copy.deepcopy(original), changed))
    _check_names(made, now)
    ties = _ties(now)
    weights = save({name: _plain(tensor) for name, tensor in now.items() if name not in ties})
    record = Record(
        schema="edgekit.network/1",
        edgekit=edgekit.__version__,
        weights=hashlib.sha256(weights).hexdigest(),
        code=modules_of(original),
        changed=changed,
        tensors={name: _looks(now[name]) for name in now if _looks(now[name]) != _looks(made[name])},
        ties=ties,
    )
    with folder_written_whole(folder, is_ours=_is_network) as place:
        (place / WEIGHTS).write_bytes(weights)
        (place / FILE).write_text(record.model_dump_json(by_alias=True, exclude_defaults=True, indent=1))


def load_network(folder: Path, fresh: torch.nn.Module) -> torch.nn.Module:
    """The network that was saved, made of a fresh one.

    Args:
        folder: of `save_network`.
        fresh: as the user's code makes it, with any weights; it is changed in place.

    Returns:
        The network in evaluation mode.

    Raises:
        BadInput: the files are missing, damaged or made by other code than `fresh`; the line says where.
    """
    record = _read_record(folder / FILE)
    tensors = _read_weights(folder / WEIGHTS, record.weights)
    try:
        check_code(record.code, fresh)
        network = applied(fresh, record.changed)
        _fill(network, record, tensors)
    except BadInput as error:
        raise BadInput(str(error), where=str(folder)) from error
    return network.eval()


def _state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers, the very tensors, under each of their names."""
    import torch

    found = network.state_dict(keep_vars=True)
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise BadInput(f"holds a {type(value).__name__}, only tensors are saved", where=f"`{name}`")
    return dict(found)


def _ties(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The names of tensors that have an earlier name, with that."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    return {name: kept for name, kept in names.items() if name != kept}


def _looks(tensor: torch.Tensor) -> Tensor:
    return Tensor(shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that shares no storage with others, its axes in order."""
    import torch

    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _check_names(made: Iterable[str], wanted: Iterable[str]) -> None:
    made, wanted = list(made), list(wanted)
    for name in wanted:
        if name not in made:
            raise BadInput("the user's code makes no such parameter", where=f"`{name}`", todo=CODE)
    for name in made:
        if name not in wanted:
            raise BadInput("the saved network has no such parameter", where=f"`{name}`", todo=CODE)


def _is_network(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return FILE in names and names <= {FILE, WEIGHTS}


def _read_record(path: Path) -> Record:
    try:
        return Record.model_validate_json(_read(path, MOST_JSON))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"is no saved network: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        raise BadInput(what, where=str(path)) from error


def _read_weights(path: Path, digest: str) -> dict[str, torch.Tensor]:
    """The tensors by name.

    Raises:
        BadInput: the file is not the one that was saved, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = _read(path, MOST_WEIGHTS)
    if hashlib.sha256(content).hexdigest() != digest:
        raise BadInput(f"is not the file that {FILE} names: its digest differs", where=str(path))
    try:
        tensors: dict[str, torch.Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BadInput(f"is no safetensors file: {first_line(error)}", where=str(path)) from error
    return tensors


def _read(path: Path, most: int) -> bytes:
    try:
        if not path.is_file():
            raise BadInput("no such file", where=str(path), todo="name a folder of `save_network`")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    if len(content) > most:
        raise BadInput(f"is larger than {most // 10**6} MB", where=str(path))
    return content


def _fill(network: torch.nn.Module, record: Record, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put the tensors into the network, those that were one tensor as one again."""
    now, ties = _state(network), record.ties
    for name, kept in ties.items():
        if name in tensors or kept not in tensors:
            raise BadInput(f"cannot be the same as `{kept}`", where=f"`{name}`")
    _check_names(now, [*tensors, *ties])
    for kept in filter(tensors.__contains__, now):  # in the network's order: a file has none
        value = tensors[kept]
        names = [kept, *(name for name, other in ties.items() if other == kept)]
        for name in names:
            expected, found = record.tensors.get(name, _looks(now[name])), _looks(value)
            if expected != found:
                what = f"is {found.dtype} {list(found.shape)}, not {expected.dtype} {list(expected.shape)}"
                raise BadInput(what, where=f"`{name}`", todo=CODE)
        _put(network, now, names, value)


def _put(
    network: torch.nn.Module, now: Mapping[str, torch.Tensor], names: list[str], value: torch.Tensor
) -> None:
    """One tensor under these names: its values where it stands, else it in the place of what stands there."""
    import torch

    place = now[names[0]]
    same = {name for name, tensor in now.items() if tensor is place} == set(names)
    if same and not place.is_meta and _looks(place) == _looks(value):
        with torch.no_grad():
            place.copy_(value)
        return
    if isinstance(place, torch.nn.Parameter):
        value = torch.nn.Parameter(value, requires_grad=value.is_floating_point())
    for name in names:
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, value)
