"""What in the records of a `.pt2` file would run when torch loads it or calls the program.

torch's loader unpickles, evaluates size expressions as Python, looks operators up by attribute and imports
the modules that a tree of outputs names. Everything here is a list of what is let through.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

# Size expressions: arithmetic over symbols, without texts, attributes or any but sympy's own functions.
ARITHMETIC = re.compile(r"[\w\s+\-*/%(),.<>=&|~]*")
CALL_OR_ATTRIBUTE = re.compile(r"\b([a-z_]\w*)\s*\(|__|\.\s*[A-Za-z_]")
SYMPY_FUNCTIONS = {"floor", "ceiling", "sqrt", "log", "exp"}
# Operators on tensors and on sizes. `_operator` also has `call` and `attrgetter`: they could do anything.
ON_TENSORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision|higher_order)(\.\w+)+"
)
ON_SIZES = re.compile(
    r"torch\.(_?sym_\w+|_check\w*)|math\.\w+|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|"
    r"ne|lt|le|gt|ge|and_|or_|xor|not_|lshift|rshift|getitem)"
)
FILE_OPERATOR = re.compile(r"torch\.ops\.aten\.(from_file|save)\b")
LOOKED_UP = ("torch", "_operator", "math", "#")
# Containers of inputs and outputs: others import the module that their name says.
CONTAINERS = {
    None, "builtins.tuple", "builtins.list", "builtins.dict", "builtins.NoneType", "collections.OrderedDict",
}  # fmt: skip
PLAIN_WEIGHT = re.compile(r"(weight|tensor)_\d+")


def find_code(name: str, data: bytes) -> str | None:
    """What in a record could run code, in words; None when nothing could."""
    if name.endswith(".pt"):
        return None if _is_plain(data) else f"the pickle `{name}`"
    if not name.endswith(".json"):
        return None
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return f"the record `{name}`, which is not JSON"
    found = (_look_at(item) for item in _dicts(tree))
    return next((what for what in found if what is not None), None)


def _is_plain(data: bytes) -> bool:
    """Whether torch's safe unpickler takes it; an empty record stands for nothing."""
    import torch

    try:
        if data:
            torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # noqa: BLE001 - whatever the safe unpickler stumbles over, it is not plain
        return False
    return True


def _dicts(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object anywhere in a JSON tree, and in the texts in it that are JSON themselves."""
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, str) and item.lstrip().startswith(("[", "{")):
            try:
                item = json.loads(item)
            except (ValueError, RecursionError):
                continue
        if isinstance(item, dict):
            yield item
        if isinstance(item, dict | list):
            pending += item.values() if isinstance(item, dict) else item


def _look_at(item: dict[str, Any]) -> str | None:
    """What in one object would run, in words."""
    expression = item.get("expr_str")
    if isinstance(expression, str) and not is_size_expression(expression):
        return f"the expression `{expression[:60]}`"
    for target in (item.get("target"), item.get("as_operator")):
        if isinstance(target, str) and target.startswith(LOOKED_UP) and not is_operator(target):
            return f"the operator `{target[:60]}`"
    if item.get("use_pickle") or not PLAIN_WEIGHT.fullmatch(str(item.get("path_name", "weight_0"))):
        return f"the pickled object `{item.get('path_name')}`"
    if "children_spec" in item and item.get("type") not in CONTAINERS:
        return f"the container `{item.get('type')}`"
    return "an enumeration" if "__enum__" in item else None


def is_operator(target: str) -> bool:
    """Whether a target names an operator on tensors, or arithmetic on sizes."""
    if "__" in target or FILE_OPERATOR.match(target):
        return False
    return ON_TENSORS.fullmatch(target) is not None or ON_SIZES.fullmatch(target) is not None


def is_size_expression(text: str) -> bool:
    """Whether a text is arithmetic over symbols, and calls nothing but sympy's own functions."""
    bare = re.sub(r"Symbol\('\w+'", "Symbol(0", text)
    if ARITHMETIC.fullmatch(bare) is None:
        return False
    return all(match[1] in SYMPY_FUNCTIONS for match in CALL_OR_ATTRIBUTE.finditer(bare))
