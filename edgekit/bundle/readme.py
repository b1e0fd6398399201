"""The README of a bundle: for whoever finds it on the device, without edgekit and without its maker."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from edgekit.bundle.manifest import Manifest, Tensor
from edgekit.cost import (
    LABELS,
    OUTCOMES,
    Cost,
    Figure,
    cost_from_dict,
    judge,
    outcome,
    show_figure,
    show_value,
)
from edgekit.errors import count

SOURCES = {
    "manifest.json": "what this bundle is, for programs: everything below, and the SHA-256 of every file",
    "run.py": "checks, measures, predicts, serves; a program and a Python module",
    "runner/": "the parts of `run.py`",
    "requirements.txt": "the packages that `run.py` needs, exact versions",
}
WHEELS = "wheels/"
INSTALLER = f"{WHEELS}pip-"


def bundle_readme(manifest: Manifest) -> str:
    """The text, Markdown that reads well as it is."""
    sections = (_opening, _install, _use, _tensors, _figures, _origin, _files)
    return "\n".join("\n".join(section(manifest)) for section in sections)


def _opening(manifest: Manifest) -> Iterable[str]:
    device, runtime = manifest.device, manifest.runtime
    chip = ", ".join(part for part in (device.soc, device.core, device.arch) if part)
    yield f"# {manifest.name}"
    yield ""
    yield f"A neural network that edgekit {manifest.edgekit} made for `{device.target}` ({chip})."
    yield f"{runtime.name} {runtime.version} runs it, with {count(runtime.threads, 'thread')}."
    if runtime.name == "tensorrt":
        yield "TensorRT is not yet run on hardware by edgekit. It makes its engine at the first start, which"
        yield "can take minutes; where it is missing or fails, onnxruntime runs the file and a line says why."
    yield "Nothing here needs edgekit or a network connection, once the packages are installed."
    yield ""


def _install(manifest: Manifest) -> Iterable[str]:
    versions = " or ".join(manifest.device.python)
    python = f"Python {versions}" if versions else "Python"
    venv = shlex.quote(f"../{manifest.name}-venv")
    yield "## Install"
    yield ""
    yield f"With {python} on {manifest.device.arch} Linux, in this folder:"
    yield ""
    # TensorRT's bindings come with the board's system, from no package index.
    system = "--system-site-packages " if manifest.runtime.name == "tensorrt" else ""
    installer = next((name for name in manifest.files if name.startswith(INSTALLER)), None)
    without = "--without-pip " if installer else ""  # Debian has the other way in a package of its own
    yield f"    python3 -m venv {without}{system}{venv}"
    yield f"    . {venv}/bin/activate"
    if installer:
        yield f"    python {installer}/pip install --no-index --find-links {WHEELS} -r requirements.txt"
        yield ""
        yield f"No network is needed: everything is in `{WHEELS}`. With one, pip's index does as well."
    else:
        yield "    python -m pip install -r requirements.txt"
    yield ""


def _use(manifest: Manifest) -> Iterable[str]:
    names = [tensor.name for tensor in manifest.inputs]
    files, given, arrays = "--input input.npy", "a `.npy` file", "array"
    if len(names) > 1:
        files = " ".join(f"--input input{number}.npy" for number in range(1, len(names) + 1))
        given, arrays = "a `.npy` file for each input in its order, or one `.npz` of all", "*arrays"
    yield "## Use"
    yield ""
    yield "    python run.py --check            # files and golden outputs are as they must be"
    yield "    python run.py --bench --quick    # latency and memory on this very device, as JSON"
    yield "    python run.py --bench --sustained 600    # what is left of it after ten minutes"
    yield f"    python run.py {files}"
    yield ""
    yield f"`--input` takes {given}. As a Python module:"
    yield ""
    yield "    import run"
    yield "    model = run.load()"
    yield f"    result = model.predict({arrays})"
    yield ""
    yield "As a service, over HTTP on a Unix socket or on `127.0.0.1:PORT`:"
    yield ""
    yield "    python run.py --serve unix:/tmp/model.sock"
    yield "    curl --unix-socket /tmp/model.sock http://localhost/health"
    yield f"    curl --unix-socket /tmp/model.sock http://localhost/predict {_curl(names)}"
    yield ""
    yield "`/` says what it takes, `/metrics` how it fares. `--help` shows the rest."
    yield ""


def _curl(names: Sequence[str]) -> str:
    """The options that send a request's arrays as a file."""
    kind, file = ("npz", "inputs.npz") if len(names) > 1 else ("npy", "input.npy")
    return f"-H 'Content-Type: application/x-{kind}' --data-binary @{file}"


def _tensors(manifest: Manifest) -> Iterable[str]:
    yield "## Inputs and outputs"
    yield ""
    yield from _table(
        ("", "name", "type", "shape", "range seen"),
        [
            *(_tensor_row("input", tensor) for tensor in manifest.inputs),
            *(_tensor_row("output", tensor) for tensor in manifest.outputs),
        ],
    )
    if any(isinstance(axis, str) for tensor in manifest.inputs for axis in tensor.shape):
        yield ""
        yield "A word in a shape is an axis of free size; the same word is the same size."
    yield ""


def _tensor_row(kind: str, tensor: Tensor) -> tuple[str, ...]:
    shape = " x ".join(str(axis) for axis in tensor.shape) or "scalar"
    span = "unknown" if tensor.range is None else f"{tensor.range[0]:.4g} to {tensor.range[1]:.4g}"
    return kind, f"`{tensor.name}`", tensor.dtype, shape, span


def _figures(manifest: Manifest) -> Iterable[str]:
    cost, here, budget = (_cost(data) for data in (manifest.cost, manifest.here, manifest.budget))
    verdicts = {verdict.name: verdict for verdict in judge(cost, budget)}
    yield f"## Figures for `{manifest.device.profile}`"
    yield ""
    if verdicts:
        status = outcome(list(verdicts.values()))
        yield f"Budget: **{status}**: {OUTCOMES[status]}."
        yield ""
    names = [name for name in LABELS if getattr(cost, name) or name in verdicts]
    yield from _table(
        ("", "figure", "limit", "outcome", "how it was got"),
        [
            _figure_row(name, cost, budget, verdicts[name].status if name in verdicts else "")
            for name in names
        ],
    )
    yield ""
    if any(figure.how == "predicted" for _, figure in cost.known()):
        yield "A predicted figure was computed, not measured; the interval of a latency holds 9 cases in 10."
        yield ""
    yield from _quality(manifest.quality)
    if any(here.known()):
        yield "Measured on the machine of the build, which is not the target:"
        yield ""
        rows = [(LABELS[name][0], show_value(name, item.value), _how(item)) for name, item in here.known()]
        yield from _table(("", "figure", "how it was got"), rows)
        yield ""


def _figure_row(name: str, cost: Cost, budget: Cost, status: str) -> tuple[str, ...]:
    figure, limit = getattr(cost, name), getattr(budget, name)
    shown = show_figure(name, figure) if figure else "unknown"
    most = show_value(name, limit.value) if limit else ""
    return LABELS[name][0], shown, most, status, _how(figure) if figure else "neither measured nor predicted"


def _how(figure: Figure) -> str:
    return f"{figure.how}: {figure.source}"


def _quality(quality: Mapping[str, Any] | None) -> Iterable[str]:
    if not quality or quality.get("kind") in (None, "none"):
        return
    on = f" on {quality['samples']} samples" if quality.get("samples") else ""
    score = quality.get("score")
    if quality["kind"] == "accuracy":
        yield (
            f"Quality: the score of the task's own `evaluate` is {score:.4g}{on}."
            if score is not None
            else ""
        )
    else:
        # A signal-to-noise ratio of equal outputs is infinite, which JSON cannot say.
        value = "without a difference" if score is None else f"{score:.4g}"
        yield f"Quality: fidelity to the original network ({quality['kind']}) {value}{on}."
    yield ""


def _origin(manifest: Manifest) -> Iterable[str]:
    yield "## How it was made"
    yield ""
    yield "The recipe, which `edgekit build --recipe` replays:"
    yield ""
    yield from (f"    {line}" for line in json.dumps(manifest.recipe, indent=2).splitlines())
    yield ""
    if manifest.versions:
        made = (f"{name} {version}" for name, version in sorted(manifest.versions.items()))
        yield f"With {', '.join(made)}."
        yield ""


def _files(manifest: Manifest) -> Iterable[str]:
    golden = manifest.golden
    meaning = {
        manifest.artifact: "the network",
        **dict.fromkeys(manifest.beside, "its weights"),
        golden.file: f"{golden.samples} real inputs and what the network makes of them; "
        f"here they must come out to {golden.min_snr_db:g} dB",
        **SOURCES,
    }
    if any(name.startswith(WHEELS) for name in manifest.files):
        meaning[WHEELS] = "these packages and all that they need, and pip"
    yield "## Files"
    yield ""
    yield from _table(("file", "what it is"), [(f"`{name}`", what) for name, what in meaning.items()])
    yield ""


def _cost(data: Mapping[str, Any]) -> Cost:
    return cost_from_dict(cast(Mapping[str, Mapping[str, Any]], data))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """A Markdown table whose columns line up in plain text too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    for row in (cells[0], rule, *cells[1:]):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
