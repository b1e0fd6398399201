"""The house stands as docs/architecture.md draws it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "edgekit"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
# From the foundations up, as the page lists them: what stands in one line uses lines above it, or itself.
FLOORS = [
    re.findall(r"`([a-z_]+)`", line)
    for line in PAGE.partition("## What may import what")[2].partition("##")[0].splitlines()
    if line.startswith("1. ") or re.match(r"\d+\. ", line)
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
DOORS = {(PACKAGE / "compress" / "__init__.py", "api")}  # the package is called like the API's function
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem[:2] != "__")


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path):
    """The rooms of edgekit that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgekit."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "edgekit":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("edgekit."))


def test_the_page_has_a_floor_for_every_room_and_no_other():
    assert set(FLOOR_OF) == {room_of(path) for path in FILES}


def test_the_page_has_a_row_for_every_room():
    rows = PAGE.partition("## Rooms")[2].partition("\n## ")[0]
    missing = [room for room in FLOOR_OF if f"`{room}.py`" not in rows and f"`{room}/`" not in rows]
    assert missing == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_imports_from_a_floor_above_its_own(path):
    room = room_of(path)
    used = {other for other in imported_rooms(path) if (path, other) not in DOORS}
    upward = {other for other in used if FLOOR_OF[other] >= FLOOR_OF[room] and other != room}
    assert upward == set()
