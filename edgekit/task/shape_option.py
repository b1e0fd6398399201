"""The option `--input-shape`: `1x3x32x32`, `image=batchx3x224x224`, `tokens=1xtime@16:int64`.

A size is a number, or a word that names a dynamic axis. `word@16` says which size the example call has along
it; without that it is 1, or what an ONNX file or the calibration data say. Between two words the first one's
size must be written, `batch@1xtime@16`: a word with an x inside is refused, for it may be two. `scalar` is a
shape without axes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgekit.errors import BadInput
from edgekit.near import nearest

OPTION = re.compile(r"(?:(?P<name>[^=]+)=)?(?P<shape>[^:=]+)(?::(?P<dtype>[^:=]*))?")
# Words hold no digits, so an x beside a digit always stands between two sizes.
BETWEEN = re.compile(r"(?<=[0-9])x|x(?=[0-9])")
SIZE = re.compile(r"[0-9]{1,9}")
WORD = re.compile(r"(?P<word>[A-Za-z_]+)(?:@(?P<size>[0-9]{1,9}))?")
DTYPES = (
    "float32", "float64", "float16", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
MOST_ELEMENTS = 10**9
HOW = "write `1x3x32x32`, `name=batchx3x32x32` or `name=1x16:int64`"


@dataclass(frozen=True, kw_only=True)
class ShapeOption:
    """One input as the option says it.

    Attributes:
        name: None when it goes to the input of its place.
        sizes: of the example call; None where only a word was given.
        words: the names of the dynamic axes, by axis.
        dtype: None where none was given.
    """

    name: str | None
    sizes: tuple[int | None, ...]
    words: dict[int, str] = field(default_factory=dict)
    dtype: str | None = None


def parse_shape(text: str) -> ShapeOption:
    """What one `--input-shape` says.

    Raises:
        BadInput: it is not written as it must be, a size is 0, or the array would be too large to hold.
    """
    where = f"--input-shape {text[:80]}"
    match = OPTION.fullmatch(text.strip())
    if match is None:
        raise BadInput("is not a shape", where=where, todo=HOW)
    dtype = match["dtype"]
    if dtype is not None and dtype not in DTYPES:
        raise BadInput(
            f"unknown type `{dtype}`", where=where, todo=nearest(dtype, DTYPES) or "write `:float32`"
        )
    sizes, words = _parse_sizes(match["shape"].strip(), where)
    if math.prod(size or 1 for size in sizes) > MOST_ELEMENTS:
        raise BadInput(f"has more than {MOST_ELEMENTS:,} elements", where=where, todo="give a smaller shape")
    return ShapeOption(name=match["name"], sizes=sizes, words=words, dtype=dtype)


def _parse_sizes(text: str, where: str) -> tuple[tuple[int | None, ...], dict[int, str]]:
    if text == "scalar":
        return (), {}
    sizes: list[int | None] = []
    words: dict[int, str] = {}
    for axis, part in enumerate(BETWEEN.split(text)):
        word = WORD.fullmatch(part)
        if word is None and SIZE.fullmatch(part) is None:
            raise BadInput(f"`{part}` is not a size", where=where, todo=HOW)
        if word is not None:
            words[axis] = _only_one(word["word"], where)
        number = part if word is None else word["size"]
        if number is not None and int(number) == 0:
            raise BadInput("a size is 0", where=where, todo="give sizes of 1 or more")
        sizes.append(int(number) if number is not None else None)
    return tuple(sizes), words


def _only_one(word: str, where: str) -> str:
    """The word, unless it may as well be two with an x between them."""
    first, between, second = word.partition("x")
    if first and between and second:
        raise BadInput(
            f"`{word}` may be one axis or two",
            where=where,
            todo=f"write `{first}@1x{second}` for two, or choose a word without an x inside for one",
        )
    return word


def parse_shapes(texts: Sequence[str]) -> tuple[ShapeOption, ...]:
    """What several `--input-shape` say together: all with a name, or all without.

    Raises:
        BadInput: one is not a shape, some have a name and some none, or a name stands twice.
    """
    options = tuple(parse_shape(text) for text in texts)
    names = [option.name for option in options]
    if None in names and any(name is not None for name in names):
        raise BadInput(
            "some shapes have a name and some do not", where="--input-shape", todo="name all of them"
        )
    twice = next((name for name in names if name is not None and names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"`{twice}` stands twice", where="--input-shape", todo="give each input once")
    return options
