"""The commands of `run.py`: each takes the parsed options, the bundle's folder and the module `run`."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

MEMORY_RUNS = 10
MEMORY_SECONDS = 2.0


def run(options: Any, bundle: str, runner: Any) -> int:
    """Do what the options ask; returns the exit status."""
    if options.memory:
        return memory(options, bundle, runner)
    if options.count:
        return count(bundle, runner)
    if options.check:
        return check(options, bundle, runner)
    if options.bench:
        return bench(options, bundle, runner)
    if options.serve:
        return int(runner.part("serve").serve(runner, bundle, options))
    return predict(options, bundle, runner)


def memory(options: Any, bundle: str, runner: Any) -> int:
    """Load and run the model, and print what memory that took, as JSON.

    One golden sample at a time is held, so that the others do not count.
    """
    facts = runner.part("facts")
    watch = runner.part("guest_memory").Watch(facts)
    manifest = runner.read_manifest(bundle)
    runner.with_runtime(bundle, runner.session(manifest).version)
    runner.read_golden(bundle, manifest, [0])
    before = facts.rss_mb()
    watch.read()
    model = runner.load(bundle, options.threads)
    watch.read()
    start = time.perf_counter()
    for number in range(max(MEMORY_RUNS, manifest["golden"]["samples"])):
        feeds = runner.read_golden(bundle, manifest, [number % manifest["golden"]["samples"]])[0][0]
        runner.with_runtime(bundle, lambda feeds=feeds: model.run(feeds))
        watch.read()
        if time.perf_counter() - start > MEMORY_SECONDS:
            break
    plain = {"before_load_rss_mb": before, "peak_rss_mb": facts.peak_rss_mb()}
    print(json.dumps({**plain, **watch.figures()}))
    return 0


def check(options: Any, bundle: str, runner: Any) -> int:
    """Compare the files with their digests and the outputs with the golden ones."""
    manifest = runner.read_manifest(bundle)
    runner.refuse_damage(bundle, manifest)
    samples = runner.read_golden(bundle, manifest)
    runner.probe_runtime(bundle, options.threads)
    lowest = runner.compare_golden(bundle, runner.load(bundle, options.threads), samples)
    floor = manifest["golden"]["min_snr_db"]
    if options.json:
        shown = None if math.isinf(lowest) else round(lowest, 2)
        figures = {"files": len(manifest["files"]), "samples": len(samples)}
        print(json.dumps({**figures, "lowest_snr_db": shown, "min_snr_db": floor}))
        return 0
    agreement = "exactly" if math.isinf(lowest) else f"to {lowest:.1f} dB"
    print(
        f"check passed: {len(manifest['files'])} files have their digests, "
        f"{len(samples)} golden samples agree {agreement} (at least {floor:g} dB)"
    )
    return 0


def bench(options: Any, bundle: str, runner: Any) -> int:
    """Measure, and print the result as JSON."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    result = runner.part("benchmark").benchmark(
        runner,
        bundle,
        mode="sustained" if options.sustained else options.mode or "standard",
        seconds=options.sustained,
        threads=options.threads,
        say=say,
    )
    samples = result.pop("samples_ms")
    # The samples on one line, all else to be read.
    print(json.dumps(result, indent=2)[:-2] + f',\n  "samples_ms": {json.dumps(samples)}\n}}')
    return 0


def count(bundle: str, runner: Any) -> int:
    """Run the model for an emulator that counts; prints as JSON what was run."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    print(json.dumps(runner.part("counting").count(runner, bundle, say)))
    return 0


def predict(options: Any, bundle: str, runner: Any) -> int:
    """Predict from files; prints the outputs as JSON."""
    inputs = runner.part("inputs")
    arrays: dict[str, Any] = {}
    for number, path in enumerate(options.input, start=1):
        read = runner.with_runtime(bundle, lambda path=path: inputs.read_arrays(path))
        arrays.update({name or f"#{number}": array for name, array in read.items()})
    model = runner.load(bundle, options.threads)
    ordered = inputs.match(arrays, model.inputs)
    start = time.perf_counter()
    outputs = runner.with_runtime(bundle, lambda: model.predict(*ordered))
    taken_ms = (time.perf_counter() - start) * 1000
    named = outputs if isinstance(outputs, tuple) else (outputs,)
    shown = {spec["name"]: show(named[i]) for i, spec in enumerate(model.outputs)}
    print(json.dumps({"outputs": shown, "first_call_ms": round(taken_ms, 3)}))
    return 0


def show(array: Any) -> dict[str, Any]:
    """An array as JSON data; NaN and infinite values become null."""
    import numpy

    array = numpy.asarray(array)
    values = array
    if array.dtype.kind in "fc" and not numpy.isfinite(array).all():
        values = numpy.where(numpy.isfinite(array), array.astype(object), None)
    return {"shape": list(array.shape), "dtype": str(array.dtype), "values": values.tolist()}
