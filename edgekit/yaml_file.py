"""YAML that people write, read without its traps: bounded, with no references and no key twice."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from edgekit.errors import BadInput, first_line

MAX_BYTES = 256 * 1024


def read_mapping(path: Path, *, todo: str) -> dict[str, Any]:
    """The keys of a YAML or JSON file.

    Args:
        path: the file.
        todo: advice where it is missing or holds no keys.

    Raises:
        BadInput: missing, too large, not YAML, or no mapping; the line of the file is named where known.
    """
    text = _text(path, todo)
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 a SafeLoader that refuses more
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BadInput(error.problem or "not YAML", where=line, todo="correct the YAML there") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML's constructors of tagged values leak whatever their conversion raises.
        raise BadInput(
            f"cannot be read as YAML: {first_line(error)}", where=str(path), todo="correct the file"
        ) from error
    if not isinstance(data, dict):
        raise BadInput("holds no keys", where=str(path), todo=f"write `key: value` lines; {todo}")
    return data


def read_scalar(text: str) -> Any:
    """A value as it would stand in a file: `true`, `0.5`, `entropy`; the text where that is no YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 a SafeLoader that refuses more
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return text


def _text(path: Path, todo: str) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadInput("is not UTF-8 text", where=str(path), todo="save it as UTF-8 YAML") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        what = f"cannot be read: {(reason or first_line(error)).lower()}"
        raise BadInput(what, where=str(path), todo=todo) from error
    if len(content) > MAX_BYTES:
        raise BadInput(f"is larger than {MAX_BYTES // 1024} KiB", where=str(path), todo="give a YAML file")
    return text


class _Loader(yaml.SafeLoader):
    """YAML without its traps: no duplicate keys, no keys that are not text, no references."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "references (`*name`) are not read", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            text = key.value
            if not isinstance(text, str) or key.tag != "tag:yaml.org,2002:str":
                problem = "a key must be text"
            elif text in seen:
                problem = f"the key `{text[:64]}` stands twice"
            else:
                seen.add(text)
                continue
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep=deep)
