"""Plain data of a target or profile file to a validated record; every problem in words; the JSON schema.

A figure is written `{value: 50, source: where it comes from}`. A bare value's source is the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from edgekit.errors import clean
from edgekit.near import nearest

FIGURE = {"figure": True}
FIGURES = {"figures": True}
_PARTS = {"value", "source"}


def figure(description: str, **constraints: Any) -> Any:
    """A pydantic field that is written with its source."""
    return Field(description=description, json_schema_extra=dict(FIGURE), **constraints)


def figures(description: str, **constraints: Any) -> Any:
    """A pydantic field that is a mapping, each of whose values is written with its source."""
    return Field(description=description, json_schema_extra=dict(FIGURES), **constraints)


class Record(BaseModel):
    """A frozen record that refuses unknown keys and knows where each of its figures comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> Mapping[str, str]:
        """The source of each figure, by the path of its key: `budget.size_mb`."""
        return self._sources


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file: the path of the key, what is wrong, what to do about it."""

    key: str
    what: str
    todo: str | None = None


@dataclass(frozen=True)
class Built:
    """A record, or the problems that keep its data from being one."""

    record: Any
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Split:
    origins: Mapping[str, str]
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def build(
    model: type[R], data: Mapping[str, Any], *, source: str, origins: Mapping[str, str] | None = None
) -> Built:
    """The record that `data` describes.

    Args:
        model: the record's type.
        data: a file's keys after `extends`.
        source: of figures that are written without one.
        origins: the files that such figures come from, by the path of their key, where they are others.
    """
    split = _Split(origins or {})
    plain = _plain(model, data, "", split, source)
    try:
        record = model.model_validate(plain)
    except ValidationError as error:
        return Built(None, (*split.problems, *_problems(model, error.errors(include_url=False))))
    record._sources.update(split.sources)
    return Built(record, tuple(split.problems))


def keys(model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a file that this record reads, with their pydantic fields."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def _plain(
    model: type[BaseModel], data: Mapping[str, Any], path: str, split: _Split, source: str
) -> dict[str, Any]:
    """`data` with each figure replaced by its value; sources and malformed figures go to `split`."""
    known, plain = keys(model), {}
    for key, item in data.items():
        info, here = known.get(key), f"{path}{key}"
        if info is not None and info.json_schema_extra == FIGURE:
            plain[key] = _value(item, here, split, split.origins.get(here, source))
        elif info is not None and info.json_schema_extra == FIGURES and isinstance(item, Mapping):
            paths = {name: f"{here}.{name}" for name in item}
            plain[key] = {
                name: _value(each, paths[name], split, split.origins.get(paths[name], source))
                for name, each in item.items()
            }
        elif info is not None and isinstance(item, Mapping) and _is_record(info.annotation):
            plain[key] = _plain(info.annotation, item, f"{here}.", split, source)
        else:
            plain[key] = item
    return plain


def _value(item: Any, path: str, split: _Split, source: str) -> Any:
    if not isinstance(item, Mapping) or not _PARTS & item.keys():
        split.sources[path] = source
        return item
    for key in item.keys() - _PARTS:
        split.problems.append(Problem(f"{path}.{key}", "unknown key", "a figure has `value` and `source`"))
    for key in _PARTS - item.keys():
        split.problems.append(Problem(f"{path}.{key}", "is missing", "a figure has `value` and `source`"))
    said = item.get("source", source)
    if not isinstance(said, str) or not said.strip():
        split.problems.append(Problem(f"{path}.source", "must be text", "say where the figure comes from"))
    split.sources[path] = " ".join(str(said).split())
    return item.get("value")


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _problems(model: type[BaseModel], details: Iterable[ErrorDetails]) -> list[Problem]:
    """Each thing once: a list whose only item is wrong is also called too short.

    Below an unknown name in a mapping nothing needs to be said.
    """
    found = [(_problem(model, detail), detail["loc"][-1] == "[key]") for detail in details]
    names = {problem.key for problem, is_name in found if is_name}
    wrong = [
        problem
        for problem, is_name in found
        if is_name or not any(problem.key == name or problem.key.startswith(f"{name}.") for name in names)
    ]
    return [one for one in wrong if not any(other.key.startswith(f"{one.key}.") for other in wrong)]


def _problem(model: type[BaseModel], detail: ErrorDetails) -> Problem:
    """One of pydantic's errors in words a reader of YAML understands."""
    path = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = keys(_owner(model, detail["loc"]))
        todo = nearest(str(detail["loc"][-1]), known) or f"known keys: {', '.join(sorted(known))}"
        return Problem(path, "unknown key", todo)
    if kind == "missing":
        described = keys(_owner(model, detail["loc"])).get(str(detail["loc"][-1]))
        return Problem(path, "is missing", described.description if described else None)
    if kind == "string_type":
        return Problem(path, f"must be text, not {_shown(detail['input'])}", 'put it in quotes: "3.11"')
    message = detail["msg"].removeprefix("Input ").removeprefix("Tuple ").removeprefix("Dictionary ")
    message = message.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping")
    allowed = re.findall(r"'([^']+)'", detail["msg"]) if kind == "literal_error" else []
    return Problem(
        path, f"{message}, not {_shown(detail['input'])}", nearest(str(detail["input"])[:64], allowed)
    )


def _owner(model: type[BaseModel], loc: Iterable[int | str]) -> type[BaseModel]:
    """The record that holds the last key of `loc`."""
    for part in list(loc)[:-1]:
        info = keys(model).get(str(part))
        if info is not None:  # else it is the name of one of several figures
            kinds = (info.annotation, *get_args(info.annotation))
            model = next((kind for kind in kinds if _is_record(kind)), model)
    return model


def _shown(value: Any) -> str:
    return f"`{clean(repr(value), 40)}`"


def json_schema(model: type[Record], title: str) -> dict[str, Any]:
    """The JSON schema of the files that `model` reads, `extends` and sources included."""
    schema: dict[str, Any] = _with_sources(model.model_json_schema(by_alias=True))
    needed = schema.pop("required", [])
    schema["properties"] = {
        "extends": {"type": "string", "description": f"name or path of the {title} whose keys this adds to"},
        **schema["properties"],
    }
    schema["anyOf"] = [{"required": ["extends"]}, {"required": [key for key in needed if key != "name"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"edgekit {title}"}


def _with_sources(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_sources(item) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {key: _with_sources(item) for key, item in node.items() if key not in {"figure", "figures"}}
    if "figures" in node:
        return {**inner, "additionalProperties": _or_with_source(inner["additionalProperties"])}
    return _or_with_source(inner) if "figure" in node else inner


def _or_with_source(inner: dict[str, Any]) -> dict[str, Any]:
    """The schema of a figure: its bare value, or that with its source."""
    described: dict[str, Any] = {key: inner.pop(key) for key in ("description", "default") if key in inner}
    whole = {
        "type": "object",
        "properties": {"value": inner, "source": {"type": "string", "minLength": 1}},
        "required": ["value", "source"],
        "additionalProperties": False,
    }
    return {**described, "anyOf": [whole, inner]}
