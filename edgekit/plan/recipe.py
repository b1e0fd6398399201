"""A recipe: an ordered list of steps, plus runtime and threads; YAML or JSON, replayed as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from edgekit.artifact import RuntimeName
from edgekit.compress.depth import Depth
from edgekit.compress.distill import Distill, Finetune
from edgekit.compress.factorize import Factorize
from edgekit.compress.fuse import Fuse
from edgekit.compress.half import Half
from edgekit.compress.prune import Prune
from edgekit.compress.quantize import Quantize
from edgekit.compress.sparsify import Sparsify
from edgekit.errors import BadInput
from edgekit.near import nearest
from edgekit.yaml_file import read_mapping

Step = Annotated[
    Factorize | Depth | Prune | Sparsify | Distill | Finetune | Fuse | Half | Quantize,
    Field(discriminator="step"),
]
STEPS = (Factorize, Depth, Prune, Sparsify, Distill, Finetune, Fuse, Half, Quantize)
WORDS = tuple(step.model_fields["step"].default for step in STEPS)
HOW = "the guide's section on recipes lists the steps and their parameters"


class Recipe(BaseModel):
    """What is done to the network, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...] = Field(
        default=(), description="compression steps, in the order they are applied"
    )
    runtime: RuntimeName | None = Field(
        default=None, description="what executes the artifact; left out: the fastest of the target's"
    )
    threads: int | None = Field(
        default=None, ge=1, le=256, description="intra-op threads; left out: chosen with the runtime"
    )

    @model_validator(mode="after")
    def _network_before_graph(self) -> Recipe:
        levels = [step.level for step in self.steps]
        if levels != sorted(levels, reverse=True):
            raise ValueError(
                "steps on the network (factorize, prune, distill, ...) come before steps on the graph "
                "(half, quantize)"
            )
        words = [step.step for step in self.steps]
        if "sparsify" in words and {"distill", "finetune", "prune", "depth"} & set(
            words[words.index("sparsify") :]
        ):
            raise ValueError(
                "`sparsify` comes after the steps that train or remove: they would fill its zeros"
            )
        if sum(step.level == "graph" for step in self.steps) > 1:
            raise ValueError("`half` and `quantize` exclude one another, and each comes once")
        return self

    def pinned(self, *, route: str | None, round_to: int, runtime: RuntimeName, threads: int) -> Recipe:
        """The same recipe with what the target and the search chose written into it.

        Args:
            route: of the quantize step that was kept, None where none was looked for.
            round_to: the multiple that kept channels and ranks were rounded to.
            runtime: that the bake-off chose.
            threads: the same.
        """
        changes: dict[str, dict[str, Any]] = {
            "factorize": {"round_to": round_to},
            "prune": {"round_to": round_to},
            "quantize": {"route": route} if route else {},
        }
        steps = tuple(
            step.model_copy(update={**changes.get(step.step, {}), **step.model_dump(exclude_defaults=True)})
            for step in self.steps
        )
        return self.model_copy(update={"steps": steps, "runtime": runtime, "threads": threads})

    def data(self) -> dict[str, Any]:
        """The recipe as plain data, defaults left out; `recipe_from_data` reads it back."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        data["steps"] = [{"step": step.step, **step.model_dump(exclude_defaults=True)} for step in self.steps]
        return data


def recipe_from_data(data: Any, where: str) -> Recipe:
    """A validated recipe.

    Args:
        data: what YAML or JSON gave.
        where: named in the error.

    Raises:
        BadInput: the key that is wrong, and what is allowed there.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors(include_url=False)[:3]))
        raise BadInput(problems, where=where, todo=HOW) from error


def _problem(detail: ErrorDetails) -> str:
    """What is wrong with one key, in words."""
    key, given = ".".join(map(str, detail["loc"])) or "recipe", detail["input"]
    if detail["type"] == "extra_forbidden":
        known = {name for step in STEPS for name in step.model_fields} | set(Recipe.model_fields)
        return f"`{key}`: unknown key" + _meant(str(detail["loc"][-1]), known)
    if detail["type"] == "union_tag_invalid":
        named = str(given.get("step"))[:60]
        return f"`{key}`: unknown step `{named}`" + _meant(named, WORDS) + f" (known: {', '.join(WORDS)})"
    if detail["type"] == "union_tag_not_found":
        return f"`{key}`: no `step` says what it is (known: {', '.join(WORDS)})"
    message = detail["msg"].removeprefix("Value error, ")
    return f"`{key}`: {message[:1].lower()}{message[1:]}"


def _meant(word: str, known: Iterable[str]) -> str:
    advice = nearest(word, known)
    return f", {advice}" if advice else ""


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML or JSON file.

    Raises:
        BadInput: the file is missing, too large, no YAML, or not a recipe.
    """
    return recipe_from_data(read_mapping(path, todo=HOW), str(path))


def recipe_key(steps: tuple[Step, ...]) -> str:
    """The steps as text, defaults included: part of a cache key."""
    return json.dumps([step.model_dump(mode="json") for step in steps], sort_keys=True)
