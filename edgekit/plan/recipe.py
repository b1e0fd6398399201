"""A recipe: an ordered list of steps, plus runtime and threads; YAML or JSON, replayed as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgekit.compress.distill import Distill
from edgekit.compress.half import Half
from edgekit.compress.prune import Prune
from edgekit.compress.quantize import Quantize
from edgekit.errors import BadInput, first_line

Step = Annotated[Prune | Distill | Half | Quantize, Field(discriminator="step")]
MOST_BYTES = 1_000_000


class Recipe(BaseModel):
    """What is done to the network, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...] = Field((), description="compression steps, in the order they are applied")
    runtime: Literal["onnxruntime"] = Field("onnxruntime", description="what executes the artifact")
    threads: int | None = Field(
        None, ge=1, le=256, description="intra-op threads; the target's when left out"
    )

    @model_validator(mode="after")
    def _network_before_graph(self) -> Recipe:
        levels = [step.level for step in self.steps]
        if levels != sorted(levels, reverse=True):
            raise ValueError(
                "steps on the network (prune, distill) come before steps on the graph (half, quantize)"
            )
        if sum(step.level == "graph" for step in self.steps) > 1:
            raise ValueError("`half` and `quantize` exclude one another, and each comes once")
        return self

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
        problems = "; ".join(
            f"`{'.'.join(map(str, item['loc'])) or 'recipe'}`: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()[:3]
        )
        raise BadInput(problems, where=where, todo="see `edgekit build --help`") from error


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML or JSON file.

    Raises:
        BadInput: the file is missing, too large, no YAML, or not a recipe.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput("is larger than any recipe", where=str(path))
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read: {first_line(error)}", where=str(path)) from error
    except yaml.YAMLError as error:
        raise BadInput(f"is no YAML: {first_line(error)}", where=str(path)) from error
    return recipe_from_data(data, str(path))


def recipe_key(steps: tuple[Step, ...]) -> str:
    """The steps as text, defaults included: part of a cache key."""
    return json.dumps([step.model_dump(mode="json") for step in steps], sort_keys=True)
