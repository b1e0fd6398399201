"""The conversion matrix as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matrix_row import MOST_DROP, PRECISIONS

from edgekit.errors import count

UNTRIED = {"tensorrt": "tensorrt (*not yet run on hardware*)"}
HEAD = """# The conversion matrix

Written by `python benchmarks/matrix.py`; do not edit. {made}.

Each cell gives

- how close the outputs are to those of the float ONNX graph, as a signal-to-noise ratio on real inputs (the
  float artifact of onnxruntime is that graph: it is compared with the torch network);
- how many times smaller and how many times faster it is than the same runtime's float artifact, whose own
  time stands in its cell: batch 1, one thread, medians of one alternating run for each row, so compare within
  a row;
- the task's score, and what was lost of it where that is more than {most:.0%};
- the library's way, by its name: the best of all inside {most:.0%} of loss. *int8 PTQ* is static or dynamic,
  whichever is better; *int8 QAT* is fine-tuned for three epochs; *weight-only* is int8, activations in float.

Where there is no artifact, the cell says why. The rows of tensorrt come from onnxruntime, to which its
bundles fall back where there is no GPU: the artifacts are checked, but neither the speeds nor the answers in
fp16, which onnxruntime computes in float32, are TensorRT's: it is *not yet run on hardware*.
"""


def page(rows: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        rows: in order, those of one network together.
        versions: of the libraries.
    """
    dates = sorted({row["date"] for row in rows if row["date"]}) or ["never"]
    machines = sorted({row["machine"] for row in rows if row.get("machine")})
    made = (
        f"Made {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on {'; '.join(machines) or 'no machine'}"
    )
    parts = [HEAD.format(made=made, most=MOST_DROP)]
    for title, group in groupby(rows, key=lambda row: row["title"]):
        parts.append(f"## {title}\n\n{_table(list(group))}")
    parts.append("Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".\n")
    return "\n".join(parts)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| runtime | " + " | ".join(PRECISIONS) + " |", "|---" * (len(PRECISIONS) + 1) + "|"]
    for row in rows:
        texts = [cell_text(name, row["cells"][name]) for name in PRECISIONS]
        if _same(row["cells"]["int8 PTQ"], row["cells"]["int8 QAT"]):
            texts[PRECISIONS.index("int8 QAT")] += " (fine-tuning gained nothing)"
        lines.append(f"| {UNTRIED.get(row['runtime'], row['runtime'])} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def cell_text(precision: str, cell: Mapping[str, Any]) -> str:
    """One cell: its figures, or the reason why there are none."""
    if cell["reason"]:
        return "— " + cell["reason"].replace("|", "\\|")
    parts = ["equal" if math.isinf(cell["parity_db"]) else f"{cell['parity_db']:.1f} dB"]
    if precision == "float":
        parts.append(f"{cell['p50_ms']:.3g} ms" if cell["p50_ms"] is not None else cell["note"])
    else:
        parts.append(_times(cell["size_ratio"], "smaller", "larger"))
        parts.append(cell["note"] if cell["speed"] is None else _times(cell["speed"], "faster", "slower"))
    if cell["score"] is not None:
        parts.append(f"{cell['score']:.1%}")
    if cell["drop"] is not None and cell["drop"] > MOST_DROP:
        parts.append(f"**loses {cell['drop']:.1%}**")
    if cell["left_in_float"]:
        parts.append(f"{count(cell['left_in_float'], 'layer')} in float")
    return ", ".join(parts) + (f" `{cell['way']}`" if cell["way"] else "")


def _same(tuned: Mapping[str, Any], plain: Mapping[str, Any]) -> bool:
    """Whether two artifacts give the same answers."""
    return tuned["parity_db"] is not None and tuned["parity_db"] == plain["parity_db"]


def _times(ratio: float, more: str, less: str) -> str:
    """`1.80x faster`, `2.00x slower`."""
    return f"{ratio:.2f}x {more}" if ratio >= 1 else f"{1 / ratio:.2f}x {less}"
