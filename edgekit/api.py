"""The Python API: compress a network by these steps, in this order, without a search.

With `from edgekit.compress import Distill, Prune, Quantize`:

    result = edgekit.compress(network, [Prune(ratio=0.5), Distill(), Quantize()], "task.py")
    print(result.table())
    scores = result.predict(images)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from edgekit.artifact import RECORD, Artifact, RuntimeName, read_artifact
from edgekit.compress.saved.persist import save_network
from edgekit.errors import BadInput
from edgekit.files import folder_written_whole
from edgekit.measure import refuse_unfit
from edgekit.plan.recipe import Recipe, recipe_from_data
from edgekit.progress import Progress
from edgekit.realise import artifact, converted, float_graph, network
from edgekit.report.steps_terminal import steps_text
from edgekit.result import Parity, Quality, Route, StepReport
from edgekit.runtimes.convert import installed
from edgekit.target import load_target
from edgekit.task.call import call_module
from edgekit.task.evaluate import make_predict
from edgekit.task.load import Given, settle_task
from edgekit.task.record import Task
from edgekit.task.source import Source, module_source, open_source
from edgekit.task.taskfile import Parts, read_task_file
from edgekit.task.usercode import guard
from edgekit.workshop import Workshop, open_shop

if TYPE_CHECKING:
    import torch

    Model = torch.nn.Module | str | Path
    Data = Iterable[Any] | Callable[[], Iterable[Any]] | str | Path

DEFAULT_RUNTIME: RuntimeName = "onnxruntime"
WHERE = "edgekit.compress"
FILES = ("calibration", "training", "evaluate")  # that may be named by their files, as in the options


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """What came out.

    Attributes:
        network: the torch network after the network steps; None where the model is an ONNX file.
        artifact: for the runtime, after the graph step.
        reports: what each network step did, layer by layer.
        routes: the ways that the graph step tried, with their figures.
        parities: how close each stage is to the one before.
        quality: of the artifact on the task, and what it lost against the model.
        task: the model, as it was given, and its data.
    """

    network: torch.nn.Module | None
    artifact: Artifact
    reports: tuple[StepReport, ...]
    routes: tuple[Route, ...]
    parities: tuple[Parity, ...]
    quality: Quality
    task: Task = field(repr=False)
    _folder: tempfile.TemporaryDirectory[str] | None = field(repr=False, compare=False)

    def table(self, *, width: int = 100) -> str:
        """The reports as text, lines of at most `width` characters."""
        return steps_text(self.reports, self.routes, width=width)

    def predict(self, *arrays: Any) -> Any:
        """What the artifact gives for a batch of any size, run by its runtime here, on one thread.

        Args:
            arrays: numpy arrays or tensors, one for each input; or one dict of them by name.

        Returns:
            An array; a tuple of them where there are several outputs.

        Raises:
            BadInput: they do not fit the model.
        """
        return make_predict(self.artifact.open(), self.task)(*arrays)

    def save(self, folder: str | Path) -> None:
        """Write the network without pickle; `edgekit.compress.load_network` makes it of your model's code.

        Raises:
            BadInput: the model is an ONNX file, or the network cannot be written as data.
            OutsideFailure: the disk is full, or the folder cannot be written.
        """
        original = self.task.model
        if self.network is None or not _is_module(original):
            raise BadInput("an ONNX file is a network in a file already", todo="take `artifact`")
        save_network(Path(folder), original, self.network)


def compress(  # noqa: PLR0913 - the parts of a task, by name
    model: Model | None,
    steps: Sequence[Any],
    task: Task | str | Path | None = None,
    *,
    example: Any = None,
    calibration: Data | None = None,
    training: Data | None = None,
    evaluate: Callable[..., Any] | str | None = None,
    target: str | Path = "x86-cpu",
    runtime: RuntimeName | None = None,
    output: str | Path | None = None,
) -> Compressed:
    """Apply steps to a network, convert it for a runtime, and judge what came out.

    Args:
        model: a torch module, which stays as it is; or what `edgekit build` takes: a task file, a model file,
            `file.py:factory`, `torchvision/NAME`. None takes the task's.
        steps: of `edgekit.compress`, in order; those on the network come before the one on the graph.
        task: a task file, whose data is used, or a `Task`.
        example: instead of a task, one deployed call: a tensor, or a tuple or dict of them.
        calibration: deployed calls without labels: an iterable, a function that gives one, or as
            `--calibration` takes it. One tensor, or a dict of them, holds samples along axis 0.
        training: (input, label) batches, in the same ways.
        evaluate: scores a predict function, higher is better.
        target: whose profile the steps go by; a name or a YAML file.
        runtime: what the artifact is for; onnxruntime, where the target has it.
        output: folder for the artifact; left out, a temporary one that lasts as long as the result.

    Raises:
        BadInput: something that was given cannot be used; a step cannot treat the network.
        OutsideFailure: a package is missing, or the disk is full.
        VerificationFailed: a stage does not compute what the stage before does.
    """
    recipe = recipe_from_data({"steps": list(steps)}, WHERE)
    wanted = load_target(str(target))
    default = DEFAULT_RUNTIME if DEFAULT_RUNTIME in wanted.runtimes else wanted.runtimes[0]
    wanted = wanted.with_runtimes([runtime or default])
    if lacking := installed(wanted.runtimes[0]):
        raise lacking
    progress = Progress()
    data = {"example": example, "calibration": calibration, "training": training, "evaluate": evaluate}
    given = {name: value for name, value in data.items() if value is not None}
    with progress.stage("load the model"):
        brought = _task(model, task, given)
    # What is at hand in memory has no file whose digest could tell it from another: nothing is looked up.
    by_files = not _is_module(model) and not isinstance(task, Task) and not given
    fitting = wanted if brought.evaluate else wanted.for_fidelity()
    return _realise(open_shop(brought, fitting, progress, use_cache=by_files), recipe, output)


def _realise(shop: Workshop, recipe: Recipe, output: str | Path | None) -> Compressed:
    shop = replace(shop, baseline=float_graph(shop, Recipe()))
    shop = replace(shop, floats=converted(shop, float_graph(shop, Recipe()), Recipe()).artifact)
    graph = float_graph(shop, recipe)
    start = converted(shop, graph, recipe)
    built = artifact(shop, graph, start, recipe)
    refuse_unfit(built.artifact, shop.target)
    with shop.progress.stage("keep the network") as detail, tempfile.TemporaryDirectory() as scratch:
        small = network(shop, recipe, Path(scratch), detail)
    temporary = tempfile.TemporaryDirectory(prefix="edgekit-") if output is None else None
    place = Path(temporary.name) / "artifact" if temporary else Path(str(output))
    with folder_written_whole(place, is_ours=_is_artifact) as folder:
        built.artifact.copied_to(folder).write_record()
    return Compressed(
        network=small if _is_module(small) else None,
        artifact=read_artifact(place),
        reports=graph.reports,
        routes=built.routes,
        parities=(*graph.parities, *start.parities, *built.parities),
        quality=built.quality or shop.original.quality,
        task=shop.task,
        _folder=temporary,
    )


def _task(model: Model | None, task: Task | str | Path | None, given: Mapping[str, Any]) -> Task:
    """The model with its data.

    Raises:
        BadInput: there is no model, or one of both does not fit the other.
    """
    if isinstance(task, Task):
        if given:
            what = f"`{next(iter(given))}` is given beside a whole task"
            raise BadInput(what, where=WHERE, todo="give one of both")
        return task if model is None else _with_model(task, model)
    brought = _source(model, task)
    named = {name: str(given[name]) for name in FILES if isinstance(given.get(name), str | Path)}
    held = {name: value for name, value in given.items() if name not in named}
    options = Given(
        calibration=named.get("calibration"), training=named.get("training"), evaluate=named.get("evaluate")
    )
    return settle_task(replace(brought, parts=_parts(brought.parts, held)), options)


def _source(model: Model | None, task: str | Path | None) -> Source:
    if model is None:
        if task is None:
            raise BadInput("there is no model", where=WHERE, todo="give a torch module, or a task file")
        return open_source(str(task), model_factory=None, trust_pickle=False)
    if _is_module(model):
        brought = module_source(model)
    elif isinstance(model, str | Path):
        brought = open_source(str(model), model_factory=None, trust_pickle=False)
    else:
        raise BadInput(f"the model is a {type(model).__name__}", where=WHERE, todo="give a torch.nn.Module")
    if task is None:
        return brought
    _, parts = read_task_file(Path(task))
    return replace(brought, parts=parts, code=(*brought.code, Path(task)), where=str(task))


def _with_model(task: Task, model: Model) -> Task:
    """The task with another network, which takes its example."""
    if model is task.model:
        return task
    if not _is_module(model):
        what = "a task at hand takes a torch module"
        raise BadInput(what, where=WHERE, todo="give the task's file, or data by keywords")
    ready = module_source(model).loaded.model
    before, after = (_shapes(one, task) for one in (task.model, ready))
    if before is not None and before != after:
        raise BadInput(f"the model gives {after}, that of the task {before}", where=WHERE)
    return replace(task, model=ready)


def _shapes(model: Any, task: Task) -> list[tuple[int, ...]] | None:
    if not _is_module(model):
        return None
    return [array.shape for array in call_module(model, task.example).values()]


def _parts(parts: Parts, held: Mapping[str, Any]) -> Parts:
    """The parts of a task file with what is given instead."""
    named = {"example": "example_inputs", "calibration": "calibration_data", "training": "training_data"}
    functions: dict[str, Any] = {
        named.get(name, name): guard(
            value if callable(value) and not _is_module(value) else _Held(name, value), Path.cwd()
        )
        for name, value in held.items()
    }
    return replace(parts, **functions) if functions else parts


class _Held:
    """What was given in memory as the function that a task file would have."""

    __module__ = WHERE  # what a refusal names

    def __init__(self, name: str, value: Any) -> None:
        import torch

        self.__name__ = name
        whole = name == "calibration" and isinstance(value, torch.Tensor | np.ndarray | Mapping)
        self.value = [value] if whole else value

    def __call__(self) -> Any:
        return self.value


def _is_module(value: object) -> TypeGuard[torch.nn.Module]:
    import torch

    return isinstance(value, torch.nn.Module)


def _is_artifact(folder: Path) -> bool:
    """Whether nothing lies there but an artifact's files."""
    try:
        names = {path.name for path in read_artifact(folder).files}
    except (OSError, ValueError, KeyError):
        return False
    return {path.name for path in folder.iterdir()} <= {*names, RECORD}
