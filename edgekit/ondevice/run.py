#!/usr/bin/env python3
"""Run the model of an edgekit bundle: predict, check, measure, serve. Needs numpy and the runtime alone.

As a program: `python run.py --help`. As a module, from any folder:

    import run
    model = run.load()
    scores = model.predict(image)        # or run.predict(image), which loads at the first call
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import types
from typing import Any, Callable, Sequence, TypeVar

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = "edgekit.bundle/1"
BAD_INPUT, RUNTIME_MISSING, CHECK_FAILED = 2, 4, 5
MOST_SECONDS = 86_400  # a day
READER_GONE = 141  # what a shell gives for SIGPIPE

T = TypeVar("T")


class Refused(Exception):
    """One line for the user, and the exit status of the program."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


class Model:
    """A loaded model.

    Attributes:
        manifest: what the bundle says about itself.
        inputs, outputs: what it takes and gives: dicts with `name`, `shape` (a word is a free axis), `dtype`.
        threads: that one inference uses.
        run: the bare call, from input name -> array to the list of outputs; checks nothing.
    """

    def __init__(self, bundle: str, threads: int | None = None) -> None:
        self.manifest = read_manifest(bundle)
        self.inputs, self.outputs = self.manifest["inputs"], self.manifest["outputs"]
        self.threads = choose_threads(threads, self.manifest["runtime"]["threads"])
        path = os.path.join(bundle, self.manifest["artifact"])
        if not os.path.isfile(path):
            raise Refused(f"{path} is missing; copy the bundle again", CHECK_FAILED)
        names = [spec["name"] for spec in self.outputs]
        given = [spec["name"] for spec in self.inputs]
        open_session = session(self.manifest).open_session
        options = self.manifest["runtime"].get("options", {})
        self.run = with_runtime(
            bundle,
            lambda: open_session(path, threads=self.threads, inputs=given, outputs=names, options=options),
        )

    def predict(self, *arrays: Any) -> Any:
        """The output for one call: an array, or a tuple of arrays if the model has several outputs.

        Raises:
            WrongInput: an array does not fit (number, dtype, shape, NaN); the class is in inputs.py.
        """
        checked = part("inputs").check(arrays, self.inputs)
        outputs = self.run({spec["name"]: checked[i] for i, spec in enumerate(self.inputs)})
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def load(bundle: str | None = None, threads: int | None = None) -> Model:
    """Load the model of this bundle, or of the one in the folder `bundle`.

    Args:
        bundle: another bundle's folder.
        threads: that one inference may use; None means what the bundle asks for, at most the cores.

    Raises:
        Refused: the runtime is missing, the bundle is damaged, or there are fewer cores than threads.
    """
    return Model(bundle or HERE, threads)


def choose_threads(asked: int | None, usual: int) -> int:
    """The threads that one inference uses: those asked for, else the bundle's own, at most the cores.

    Raises:
        Refused: more than the cores are asked for; threads that wait for one another would time the wait.
    """
    cores: int = part("facts").usable_cores()
    if asked and asked > cores:
        raise Refused(
            f"{asked} threads asked for, more than this process may use cores; ask for at most {cores}",
            BAD_INPUT,
        )
    return asked or min(usual, cores)


_loaded: list[Model] = []


def predict(*arrays: Any) -> Any:
    """Predict with this bundle's model, which is loaded at the first call; see `Model.predict`."""
    if not _loaded:
        _loaded.append(load())
    return _loaded[0].predict(*arrays)


def part(name: str) -> types.ModuleType:
    """A file of the folder `runner` as a module, compiled from its source, never from a cache.

    It is loaded by its path, so that two bundles can live in one process.
    """
    path = os.path.join(HERE, "runner", name + ".py")
    unique = f"edgekit_bundle_{name}_{abs(hash(HERE))}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or not os.path.isfile(path):
        raise Refused(f"{path} is missing; copy the bundle again", CHECK_FAILED)
    module = importlib.util.module_from_spec(spec)
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec")
    except (OSError, SyntaxError, ValueError) as error:
        raise Refused(f"{path} is damaged; copy the bundle again", CHECK_FAILED) from error
    exec(code, module.__dict__)  # noqa: S102 - this bundle's own file
    sys.modules[unique] = module
    return module


def session(manifest: dict[str, Any]) -> types.ModuleType:
    """The part that opens a model with the bundle's runtime."""
    name = manifest["runtime"]["name"]
    if not (isinstance(name, str) and name.isalpha() and name.isascii()):
        raise Refused("the manifest names no runtime; copy the bundle again", CHECK_FAILED)
    return part("session_" + name)


def read_manifest(bundle: str) -> dict[str, Any]:
    """The manifest of the bundle as plain data.

    Raises:
        Refused: there is none, or it is not one that this file understands.
    """
    path = os.path.join(bundle, "manifest.json")
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; is this an edgekit bundle?", BAD_INPUT) from error
    except ValueError as error:
        raise Refused(f"{path}: not valid JSON; copy the bundle again", CHECK_FAILED) from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise Refused(f"{path}: not a manifest of schema {SCHEMA}", CHECK_FAILED)
    return manifest


def with_runtime(bundle: str, action: Callable[[], T]) -> T:
    """Do what needs numpy or the runtime; a missing package becomes one line with the remedy."""
    try:
        return action()
    except ImportError as error:
        requirements = os.path.join(bundle, "requirements.txt")
        remedy = f"run `{os.path.basename(sys.executable)} -m pip install -r {requirements}`"
        raise Refused(f"{error}; {remedy}", RUNTIME_MISSING) from error
    except Exception as error:
        if hasattr(error, "status"):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith("Exception from ")]  # OpenVINO's source lines
        line = (said or lines or [type(error).__name__])[0]
        raise Refused(
            f"the runtime refuses the model or these inputs: {line[:300]}", RUNTIME_MISSING
        ) from error


def refuse_damage(bundle: str, manifest: dict[str, Any]) -> None:
    """Raise Refused when a file is not what the manifest lists."""
    wrong = part("check").wrong_files(bundle, manifest["files"])
    if wrong:
        more = f", and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
        raise Refused(f"check failed: {wrong[0]}{more}; copy the bundle again", CHECK_FAILED)


def read_golden(bundle: str, manifest: dict[str, Any], numbers: Sequence[int] | None = None) -> list[Any]:
    """The golden samples, or those of the given numbers: (input name -> array, list of output arrays)."""
    inputs, listed = part("inputs"), manifest["golden"]
    path = os.path.join(bundle, listed["file"])
    chosen = range(listed["samples"]) if numbers is None else numbers
    arguments = (path, manifest["inputs"], manifest["outputs"], chosen)
    try:
        return list(with_runtime(bundle, lambda: inputs.read_golden(*arguments)))
    except inputs.WrongInput as error:
        raise Refused(f"check failed: {error}; copy the bundle again", CHECK_FAILED) from error


def compare_golden(bundle: str, model: Model, samples: Sequence[Any]) -> float:
    """Run the golden samples; returns the lowest signal-to-noise ratio, dB.

    Raises:
        Refused: an output is not what it must be.
    """
    names = [spec["name"] for spec in model.outputs]
    floor, lowest = model.manifest["golden"]["min_snr_db"], math.inf
    for number, (feeds, expected) in enumerate(samples):
        got = with_runtime(bundle, lambda feeds=feeds: model.run(feeds))  # type: ignore[misc]
        snr_db, wrong = part("check").compare(expected, got, names, floor)
        if wrong:
            raise Refused(f"check failed: golden sample {number}: {wrong}", CHECK_FAILED)
        lowest = min(lowest, snr_db)
    return lowest


def probe_runtime(bundle: str, threads: int | None) -> dict[str, Any]:
    """Load and run the model in a process of its own; returns its memory figures.

    A runtime built for another CPU does not raise: it kills the process. Here that becomes one line.
    """
    command = [sys.executable, os.path.abspath(__file__), "--bundle", bundle, "--memory"]
    command += ["--threads", str(threads)] if threads else []
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    except OSError as error:
        raise Refused(f"no second process can be started: {error.strerror}", RUNTIME_MISSING) from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        hint = ": this build needs instructions that this CPU lacks" if name == "SIGILL" else ""
        raise Refused(
            f"the runtime crashed with {name}{hint}; install another version of it", RUNTIME_MISSING
        )
    if done.returncode > 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        known = done.returncode in (BAD_INPUT, RUNTIME_MISSING, CHECK_FAILED)
        line = lines[-1].replace("run.py: ", "", 1)
        raise Refused(line, done.returncode if known else RUNTIME_MISSING)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    options = parse(arguments)
    bundle = os.path.abspath(options.bundle)
    try:
        return int(part("commands").run(options, bundle, sys.modules[__name__]))
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # whoever read the output has gone; so does the exit's flush
        return READER_GONE
    except Exception as error:
        status = getattr(error, "status", None)
        if status is None:
            raise
        print(f"run.py: {' '.join(str(error).split())}", file=sys.stderr)
        return int(status)
    except KeyboardInterrupt:
        print("run.py: interrupted", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="run.py", description="Predict with, check, measure or serve this model."
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare files and golden outputs (exit 0 or 5)")
    action.add_argument("--bench", action="store_true", help="measure latency and memory, print JSON")
    action.add_argument("--input", action="append", metavar="FILE", help="predict from a .npy or .npz file")
    action.add_argument(
        "--serve", metavar="ADDRESS", help="answer HTTP on unix:/path/of.sock or on 127.0.0.1:PORT"
    )
    action.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    action.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_const", const="quick", dest="mode", help="about 10 s")
    length.add_argument("--strict", action="store_const", const="strict", dest="mode", help="10 min or more")
    length.add_argument(
        "--sustained", type=_seconds, metavar="SECONDS", help="for so long; says what is left once it is warm"
    )
    parser.add_argument(
        "--max-body", type=_megabytes, metavar="MB", help="largest request that --serve reads"
    )
    parser.add_argument("--json", action="store_true", help="print the result of --check as JSON")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads that one inference may use")
    parser.add_argument("--bundle", default=HERE, metavar="DIR", help="another bundle's folder")
    options = parser.parse_args(arguments)
    if options.mode and not options.bench:
        parser.error("--quick and --strict are options of --bench")
    if options.sustained and not options.bench:
        parser.error("--sustained is an option of --bench")
    if options.max_body and not options.serve:
        parser.error("--max-body is an option of --serve")
    if options.json and not options.check:
        parser.error("--json is an option of --check; --bench and --input print JSON by themselves")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1024")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {MOST_SECONDS} s")
    return value


def _megabytes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1024 MB")
    return value


if __name__ == "__main__":
    sys.exit(main())
