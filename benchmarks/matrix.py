"""The conversion matrix: seven kinds of networks, in every runtime, in every precision.

    python benchmarks/matrix.py [--network NAME ...] [--runtime NAME ...] [--quick]

Each cell says how close the artifact is to the float graph, what its size and its speed are against the same
runtime's float artifact (batch 1, one thread, one alternating run for each row) and how good it is on the
task; or, in one line, why there is none. Every row runs in a process of its own.

Rows go to benchmarks/data/matrix.json and docs/matrix.md as they are made; one that is there already is made
again only when the network, the code of that runtime, a library or the machine has changed. All rows take
hours. The audio networks need eSpeak NG: apt-get install espeak-ng.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from matrix_page import page
from matrix_row import PRECISIONS, Cell

import edgekit
from edgekit.artifact import RUNTIMES, RuntimeName
from edgekit.cache import digest_file, digest_of
from edgekit.errors import count
from edgekit.ondevice.runner.facts import gather
from edgekit.task.digest import find_sources
from edgekit.versions import versions

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
ROW_S = 2 * 3600  # what a row is trying after that long is given up
# What decides a cell: these rooms of edgekit, less what other runtimes have there for themselves.
ROOMS = (
    "artifact.py alternate.py compress graph ondevice/runner realise.py runtimes verify.py workshop.py"
).split()
STORE, PAGE = Path("benchmarks/data/matrix.json"), Path("docs/matrix.md")
Row = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """One of the seven: how the page calls it, its task file, and files besides those that it imports."""

    title: str
    source: Path
    more: tuple[Path, ...] = ()


_EXAMPLES, _OWN = REPOSITORY / "examples", HERE / "networks"
NETWORKS = {
    "resnet20": Network("ResNet-20, digits", _EXAMPLES / "digits" / "task.py"),
    "mobilenetv2": Network(
        "MobileNetV2, ImageNet weights, photographs",
        _OWN / "mobilenetv2.py",
        (_EXAMPLES / "mobilenetv2" / "task.py",),
    ),
    "dscnn": Network("DS-CNN, spoken keywords", _OWN / "dscnn.py"),
    "gru": Network("GRU, voice activity", _OWN / "gru.py"),
    "vit": Network("Vision transformer, digits", _OWN / "vit.py"),
    "unet": Network("U-Net, handwriting on photographs", _OWN / "unet.py"),
    "detector": Network("Grid detector, NMS outside", _OWN / "detector.py"),
}


def main() -> None:
    """Make the rows that are missing; write the page and the data after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--network", action="append", choices=NETWORKS, help="all when none is named")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="all when none is named")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="see whether it works: little data; prints the page, writes nothing",
    )
    given = parser.parse_args()
    asked = list(product(given.network or NETWORKS, given.runtime or RUNTIMES))
    if given.quick:
        rows = {pair: make_row(NETWORKS[pair[0]].source, pair[1], quick=True) for pair in asked}
        print(page(_shown(rows, NETWORKS, asked), versions()))
        return
    update(REPOSITORY, NETWORKS, asked)


def update(folder: Path, networks: Mapping[str, Network], asked: Sequence[tuple[str, RuntimeName]]) -> None:
    """Make the rows that are asked for and not there yet, and write down each.

    Args:
        folder: holds, or will hold, STORE and PAGE.
        networks: all that the page shows, by name.
        asked: names of networks and runtimes.
    """
    for name, runtime in asked:
        key, rows = key_of(networks[name], runtime), read_rows(folder / STORE)
        if rows.get((name, runtime), {}).get("key") != key:
            print(f"{name}, {runtime}", file=sys.stderr, flush=True)
            row = {"key": key, **make_row(networks[name].source, runtime, quick=False)}
            rows = {**read_rows(folder / STORE), (name, runtime): row}  # another process may have added some
        write(folder, _shown(rows, networks, product(networks, RUNTIMES)))


def key_of(network: Network, runtime: RuntimeName) -> str:
    """Digest of everything that decides a row."""
    package = Path(edgekit.__file__).parent
    rooms = [package / room for room in ROOMS]
    code = [file for room in rooms for file in (sorted(room.rglob("*.py")) if room.is_dir() else [room])]
    others = set(RUNTIMES) - {runtime, "onnxruntime"}  # the float graph runs in onnxruntime
    code = [file for file in code if not any(other in file.stem for other in others)]
    sources = sorted({*find_sources([network.source]), *network.more, HERE / "matrix_row.py"})
    data = [digest_file(file) for file in (*sources, *code)]
    return digest_of([data, versions(), gather()["fingerprint"]])[:12]


def make_row(source: Path, runtime: RuntimeName, *, quick: bool) -> Row:
    """All cells of one network in one runtime, each in spite of crashes of others.

    Args:
        source: the task file.
        runtime: what executes the artifacts.
        quick: see `matrix_row.cells`.

    Raises:
        SystemExit: the task or the runtime cannot be loaded here.
    """
    crashed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        folder = Path(name)
        while (reason := _run(source, runtime, folder, crashed, quick=quick)) is not None:
            crashed[(folder / "now").read_text()] = reason
        cells = json.loads((folder / "cells.json").read_text())
    return {"date": datetime.date.today().isoformat(), "machine": _machine(), "cells": cells}


def _run(
    source: Path, runtime: RuntimeName, folder: Path, crashed: Mapping[str, str], *, quick: bool
) -> str | None:
    """Start the row; None when it came to its end, else what ended it."""
    (folder / "now").write_text("float")
    command = [sys.executable, HERE / "matrix_row.py", source, runtime, folder]
    command += [json.dumps(crashed), json.dumps(quick)]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, timeout=ROW_S, check=False)
    except subprocess.TimeoutExpired:
        return f"takes more than {ROW_S // 60} minutes"
    if done.returncode == 0:
        return None
    if done.returncode > 0:  # it has said why
        raise SystemExit(done.returncode)
    return f"kills the process ({signal.Signals(-done.returncode).name})"


def _machine() -> str:
    facts = gather()
    return ", ".join((facts["cpu_model"] or "unknown CPU", count(facts["cores"], "core"), facts["arch"]))


def read_rows(store: Path) -> dict[tuple[str, str], Row]:
    """The rows that were made, by network and runtime."""
    rows = json.loads(store.read_text())["rows"] if store.exists() else []
    return {(row["network"], row["runtime"]): row for row in rows}


def write(folder: Path, rows: Sequence[Row]) -> None:
    """The data and the page."""
    data = json.dumps({"versions": versions(), "rows": rows}, indent=1)
    for place, text in ((STORE, data), (PAGE, page(rows, versions()))):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        partial = (folder / place).with_suffix(".partial")
        partial.write_text(text)
        partial.replace(folder / place)


def _shown(
    rows: Mapping[tuple[str, str], Row],
    networks: Mapping[str, Network],
    pairs: Iterable[tuple[str, RuntimeName]],
) -> list[Row]:
    """The rows of these networks and runtimes; one that nobody made yet is there as such."""
    missing = {"date": "", "cells": dict.fromkeys(PRECISIONS, asdict(Cell(reason="not made yet")))}
    return [
        {
            **rows.get((name, runtime), missing),
            "network": name,
            "title": networks[name].title,
            "runtime": runtime,
        }
        for name, runtime in pairs
    ]


if __name__ == "__main__":
    main()
