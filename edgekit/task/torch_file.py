"""Files that torch writes: TorchScript, state dicts, safetensors, whole pickled modules."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import BadInput, first_line
from edgekit.task.record import Loaded, show_shape
from edgekit.task.usercode import import_function, importing_from, show_path

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, "torch.Tensor"]

# Where training scripts put the state dict inside a checkpoint.
CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model", "weights", "net", "ema", "params")
# torch counts batches in these; a file without them is complete.
COUNTER = "num_batches_tracked"
UNSAFE_GLOBAL = re.compile(r"(?:GLOBAL|[Uu]nsupported class) ([\w.]+)")
FILE_OPERATOR = re.compile(r"\b(from_file|save)\b")
AGAIN = "export or download it again"


def read_torchscript(path: Path, *, trust_pickle: bool) -> Loaded:
    """A TorchScript archive (torch.jit.save). Its code runs in torch's interpreter, not in Python.

    Raises:
        BadInput: the archive is corrupt, or made by a torch that this one cannot read; its code writes
            files and `trust_pickle` is not set.
    """
    import torch

    if not trust_pickle:
        _refuse_file_access(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise BadInput(
            f"TorchScript cannot be read: {first_line(error)}", where=show_path(path), todo=AGAIN
        ) from error
    return Loaded(model=model, program=path)


def _refuse_file_access(path: Path) -> None:
    """Refuse code with one of the operators by which even torch's interpreter writes files."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names = {name for name in reader.get_all_records() if name.lower().endswith(".py")}
        text = b"\n".join(reader.get_record(name) for name in sorted(names))
    except RuntimeError as error:
        raise BadInput(
            f"TorchScript cannot be read: {first_line(error)}", where=show_path(path), todo=AGAIN
        ) from error
    if found := FILE_OPERATOR.search(text.decode(errors="replace")):
        raise BadInput(
            f"its code uses the operator `{found[0]}`, which writes files",
            where=show_path(path),
            todo="add `--trust-pickle` if you trust where it comes from",
        )


def read_safetensors(path: Path, model_factory: str | None) -> Loaded:
    """Weights in a safetensors file, loaded into the network that the factory makes.

    Raises:
        BadInput: the file is corrupt, there is no factory, or the weights do not fit its network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(
            f"is not a safetensors file: {first_line(error)}", where=show_path(path), todo=AGAIN
        ) from error
    return fit_weights(weights, path, model_factory)


def read_checkpoint(path: Path, *, model_factory: str | None, trust_pickle: bool) -> Loaded:
    """A file written by torch.save: a state dict, a checkpoint around one, or a whole module.

    Raises:
        BadInput: corrupt; a module pickled with its code and `trust_pickle` is not set; holds neither
            weights nor a module; the weights do not fit the factory's network.
    """
    import torch

    content = _unpickle(path, trust_pickle)
    if isinstance(content, torch.nn.Module):
        return Loaded(model=content)
    weights, note = _find_weights(content)
    if weights is None:
        raise BadInput(
            f"holds a {type(content).__name__}, neither weights nor a module",
            where=show_path(path),
            todo="save `model.state_dict()` and give `--model-factory path.py:function`",
        )
    loaded = fit_weights(weights, path, model_factory)
    return replace(loaded, notes=(f"{show_path(path)}: {note}",)) if note else loaded


def _unpickle(path: Path, trust_pickle: bool) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = UNSAFE_GLOBAL.search(str(error))
        if needed is None:
            raise BadInput("is not a file that torch wrote", where=show_path(path), todo=AGAIN) from error
        if not trust_pickle:
            raise BadInput(
                f"is a pickle that needs `{needed[1]}` and can run any code when it is opened",
                where=show_path(path),
                todo="save the state dict and give `--model-factory path.py:function`, "
                "or add `--trust-pickle` if you trust where it comes from",
            ) from error
    except Exception as error:
        raise BadInput(f"cannot be read: {first_line(error)}", where=show_path(path), todo=AGAIN) from error
    return _unpickle_trusted(path)


def _unpickle_trusted(path: Path) -> Any:
    import torch

    try:
        with importing_from(path.parent):
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise BadInput(
            f"cannot be unpickled: {type(error).__name__}: {first_line(error)}",
            where=show_path(path),
            todo="put the code that defines its classes beside it",
        ) from error


def _find_weights(content: Any) -> tuple[Weights | None, str | None]:
    """The state dict in what a file held, and a note on where it was found."""
    if _is_state_dict(content):
        return content, None
    if isinstance(content, Mapping):
        for key in CHECKPOINT_KEYS:
            if _is_state_dict(content.get(key)):
                return content[key], f"the weights are the checkpoint's entry `{key}`"
    return None, None


def _is_state_dict(content: Any) -> bool:
    import torch

    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())


def fit_weights(weights: Weights, path: Path, model_factory: str | None) -> Loaded:
    """Put weights into the network that the factory makes; every key must fit.

    Raises:
        BadInput: no factory, it does not give a network, or a key is missing, unexpected or of another shape.
    """
    import torch

    if model_factory is None:
        raise BadInput(
            f"holds weights only ({len(weights)} tensors)",
            where=show_path(path),
            todo="add `--model-factory path.py:function`, the function that makes the network",
        )
    factory, _ = import_function(model_factory)
    model = factory()
    if not isinstance(model, torch.nn.Module):
        raise BadInput(f"gives a {type(model).__name__}, not a torch.nn.Module", where=model_factory)
    bare = _without_prefix(weights, model)
    problems = _compare_keys(bare, model)
    if problems:
        raise BadInput(f"does not fit the network of {model_factory}: {problems}", where=show_path(path))
    try:
        model.load_state_dict(dict(bare), strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise BadInput(lines[-1], where=show_path(path)) from error
    return Loaded(model=model)


def _without_prefix(weights: Weights, model: torch.nn.Module) -> Weights:
    """Drop the `module.` that DataParallel puts before every key."""
    prefix = "module."
    if all(key.startswith(prefix) for key in weights) and not hasattr(model, "module"):
        return {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _compare_keys(weights: Weights, model: torch.nn.Module) -> str:
    """What of a state dict does not fit a network, in words; empty when all of it does."""
    from torch.nn.parameter import is_lazy

    own = model.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith(COUNTER)]
    unexpected = [key for key in weights if key not in own]
    shapes = [
        f"{key} {show_shape(weights[key].shape)} for {show_shape(own[key].shape)}"
        for key in own
        if key in weights and not is_lazy(own[key]) and weights[key].shape != own[key].shape
    ]
    counted = ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
    return "; ".join(f"{len(found)} {word} ({_first_few(found)})" for found, word in counted if found)


def _first_few(words: Sequence[str]) -> str:
    return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")
