"""The options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from edgekit.artifact import RUNTIMES

if TYPE_CHECKING:
    from edgekit.pipeline import Request
    from edgekit.plan.recipe import Recipe
    from edgekit.progress import Progress
    from edgekit.task.load import Given

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(readable=False)  # so that a shell completes it; what is wrong with it, its reader says


def complete_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell offers for a target: the names that begin so, else files."""
    from edgekit.target_file import names

    del ctx, param
    found = [CompletionItem(name) for name in names("target") if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


_DATA = [
    click.option(
        "--calibration",
        type=FILE,
        metavar="DATA",
        help="Unlabelled inputs: FILE.npz, a folder, or file.py:function.",
    ),
    click.option(
        "--training",
        type=FILE,
        metavar="FILE.py:FUNCTION",
        help="Makes (input, label) batches to fine-tune with.",
    ),
    click.option(
        "--evaluate",
        type=FILE,
        metavar="FILE.py:FUNCTION",
        help="Scores a predict function; higher is better.",
    ),
    click.option(
        "--input-shape",
        multiple=True,
        metavar="[NAME=]SHAPE",
        help="Shape of an input, 1x3x224x224; a word makes an axis dynamic. May repeat.",
    ),
    click.option(
        "--model-factory",
        type=FILE,
        metavar="FILE.py:FUNCTION",
        help="Makes the network for a file of weights.",
    ),
    click.option("--trust-pickle", is_flag=True, help="Open a pickle that can run code."),
]
_LIMITS = [
    click.option(
        "--target",
        "-t",
        required=True,
        metavar="NAME|FILE",
        shell_complete=complete_target,
        help="The device; see `edgekit targets`.",
    ),
    click.option("--latency", multiple=True, metavar="TIME", help="Limit: 20ms, or p99:40ms. May repeat."),
    click.option("--memory", metavar="SIZE", help="Limit of peak memory: 64MB."),
    click.option("--size", metavar="SIZE", help="Limit of the artifact: 2MB."),
    click.option("--max-drop", metavar="DROP", help="Limit of the quality lost: 1%."),
]
_HOW = [
    click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        help="What executes it; left out: the target's fastest. tensorrt is not yet run on hardware.",
    ),
    click.option(
        "--quantize",
        metavar="METHOD[,KEY=VALUE...]",
        help="No search: quantize by this method (static, dynamic, weight-only, qat, auto), with "
        "parameters as in a recipe: static,ranges=entropy,revert=true.",
    ),
]
_OUTPUT = [
    click.option("--no-cache", is_flag=True, help="Do every stage again, and keep none."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else."),
    click.option("--verbose", "-v", is_flag=True, help="Let the libraries' own output through."),
]


def data_options(command: Command) -> Command:
    """The options that stand for the functions of a task file."""
    return _with(command, _DATA)


def build_options(command: Command) -> Command:
    """The options of a command that looks for a recipe."""
    return _with(command, [*_LIMITS, *_HOW, *_DATA, *_OUTPUT])


def _with(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def request_from(source: str, options: dict[str, Any]) -> Request:
    """What the command line asks for.

    Raises:
        BadInput: a limit is not a quantity above 0.
    """
    from edgekit.pipeline import Request
    from edgekit.quantity import parse_drop, parse_latency, parse_megabytes

    limits = dict(parse_latency(text, option="--latency") for text in options["latency"])
    if options["memory"] is not None:
        limits["peak_memory_mb"] = parse_megabytes(options["memory"], option="--memory")
    if options["size"] is not None:
        limits["size_mb"] = parse_megabytes(options["size"], option="--size")
    if options["max_drop"] is not None:
        limits["drop"] = parse_drop(options["max_drop"], option="--max-drop")
    output = options.get("output")
    return Request(
        source=source,
        given=given_from(options),
        target=options["target"],
        limits=limits,
        recipe=_recipe_from(options),
        runtime=options["runtime"],
        output=named_folder(Path(output)) if output else None,
        archive=bool(options.get("archive")),
        use_cache=not options["no_cache"],
    )


def _recipe_from(options: dict[str, Any]) -> Recipe | Path | None:
    """The recipe that `--recipe` or `--quantize` gives.

    Raises:
        BadInput: both are given, or the latter is not a method with parameters.
    """
    named, quantize = options.get("recipe"), options["quantize"]
    if quantize is None:
        return Path(named) if named else None
    from edgekit.errors import BadInput
    from edgekit.plan.recipe import recipe_from_data
    from edgekit.yaml_file import read_scalar

    if named:
        raise BadInput("`--recipe` and `--quantize` exclude one another", where="the command line")
    method, *pairs = quantize.split(",")
    step: dict[str, Any] = {"step": "quantize", "method": method.strip()}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            what, todo = f"`{pair}` is no KEY=VALUE", "for example --quantize static,ranges=entropy"
            raise BadInput(what, where="--quantize", todo=todo)
        step[key.strip()] = read_scalar(value.strip())
    return recipe_from_data({"steps": [step]}, "--quantize")


def named_folder(path: Path) -> Path:
    """The same place by a path that ends in its name: `.` and `..` have none."""
    return path if path.name not in ("", "..") else path.resolve()


def given_from(options: dict[str, Any]) -> Given:
    """The data options as the task loader takes them."""
    from edgekit.task.load import Given

    return Given(
        calibration=options["calibration"],
        training=options["training"],
        evaluate=options["evaluate"],
        input_shape=tuple(options["input_shape"]),
        model_factory=options["model_factory"],
        trust_pickle=options["trust_pickle"],
    )


def progress_from(options: dict[str, Any]) -> Progress:
    """The progress that the output options ask for."""
    from edgekit.progress import Progress

    return Progress(quiet=options["as_json"], verbose=options["verbose"])


def result_console() -> Any:
    """The console for results: standard output, as wide as the terminal, 100 columns elsewhere."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)
