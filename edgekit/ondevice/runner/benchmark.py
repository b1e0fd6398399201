"""One benchmark from the fresh process to the record: check, load, first call, warm up, measure, judge."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Iterator

SCHEMA = "edgekit.bench/1"
LAST_THIRD = "the figures are those of its last third"

Say = Callable[[str], None]


def benchmark(
    runner: Any, bundle: str, *, mode: str, seconds: float | None, threads: int | None, say: Say
) -> dict[str, Any]:
    """Measure the bundle by the protocol `mode`; the files and the golden outputs are checked before.

    Args:
        runner: the module `run`.
        bundle: its folder.
        mode: "quick", "standard", "strict" or "sustained".
        seconds: that a sustained run lasts; None in the other modes.
        threads: that one inference may use; None means what the bundle asks for.
        say: takes one line of progress.

    Returns:
        The record, schema "edgekit.bench/1"; every figure's key ends in its unit. That of a sustained run has
        the key `sustained` too, and its `latency` and `samples_ms` are those of the steady part.
    """
    manifest = runner.read_manifest(bundle)
    say("checking the files")
    runner.refuse_damage(bundle, manifest)
    say("measuring memory in a run of its own")
    memory = runner.probe_runtime(bundle, threads)
    own = (manifest["artifact"], *manifest.get("beside", []))
    memory["artifact_mb"] = sum(manifest["files"][name]["bytes"] for name in own) / 1e6
    say("loading the model")
    model, samples, start_up = open_model(runner, bundle, manifest, threads)
    say("comparing the golden outputs")
    lowest_db = runner.compare_golden(bundle, model, samples)
    timed = time_model(runner, model, [feeds for feeds, _ in samples], mode, seconds, say)
    latency = runner.part("percentiles").summarize(timed["judged_ms"])
    facts = runner.part("facts").gather(("numpy", *runner.session(manifest).PACKAGES))
    warnings = find_warnings(runner, timed, latency, model.threads, facts)
    sustained = timed["sustained"]
    result = {
        "schema": SCHEMA,
        "bundle": describe_bundle(manifest),
        "protocol": describe_protocol(mode, model.threads, timed, len(samples)),
        **start_up,
        "latency": dict(latency, max_of_all_runs_ms=timed["measured"]["max_of_all_runs_ms"]),
        "memory": memory,
        "golden_lowest_snr_db": None if math.isinf(lowest_db) else round(lowest_db, 2),
        "facts": facts,
        "snapshots": timed["snapshots"],
        "usage": timed["usage"],
        "warnings": warnings,
        "notes": [*sustained_notes(sustained), *find_notes(manifest, model, facts, latency)],
        "contaminated": bool(warnings),
        **({"sustained": sustained} if sustained else {}),
        "samples_ms": timed["judged_ms"],
    }
    return {key: rounded(value) for key, value in result.items()}


def open_model(
    runner: Any, bundle: str, manifest: Any, threads: int | None
) -> tuple[Any, Any, dict[str, float]]:
    """Import the runtime, load the model, run it once; each of the three timed."""
    samples = runner.read_golden(bundle, manifest)
    runner.part("facts")  # loading the model asks it for the cores; its own compilation is not load time
    start = time.perf_counter()
    runner.with_runtime(bundle, runner.session(manifest).version)
    imported = time.perf_counter()
    model = runner.load(bundle, threads)
    loaded = time.perf_counter()
    runner.with_runtime(bundle, lambda: model.run(samples[0][0]))
    called = time.perf_counter()
    seconds = {
        "runtime_import_ms": imported - start,
        "load_ms": loaded - imported,
        "first_call_ms": called - loaded,
    }
    return model, samples, {name: value * 1000 for name, value in seconds.items()}


def time_model(
    runner: Any, model: Any, feeds: list[Any], mode: str, seconds: float | None, say: Say
) -> dict[str, Any]:
    """Warm up and measure, with the state of the machine before, during (not in a quick run) and after.

    A sustained run starts as cold as it can: it warms up no longer than a quick one.
    """
    measure, facts, long_run = (runner.part(name) for name in ("measure", "facts", "sustained"))
    protocol = measure.PROTOCOLS[mode] if seconds is None else long_run.protocol(seconds)
    warm = measure.WARM_UPS[mode if seconds is None else "quick"]

    def tick(stage: str, runs: int, taken: float) -> None:
        limits = warm if stage == "warming up" else protocol
        late = "" if taken < limits["min_seconds"] else f", {limits['max_seconds']:.0f} s at most"
        say(f"{stage}: {runs} runs, {taken:.1f} of {limits['min_seconds']:g} s{late}")

    warm_up = measure.warm_up(model.run, feeds, warm, tick)
    width = long_run.window_ns(protocol["min_seconds"], warm_up["seconds"] / warm_up["runs"])
    with watched(None if mode == "quick" else facts.__file__) as seen:
        before, used = facts.snapshot(), facts.usage()
        begin, start = time.monotonic(), time.perf_counter()
        measured = measure.measure(model.run, feeds, protocol, tick, window_ns=width)
        wall = time.perf_counter() - start
        now, after = facts.usage(), facts.snapshot()
    usage = {key: None if used[key] is None else now[key] - used[key] for key in used}
    timed = {
        "warm_up": warm_up,
        "measured": measured,
        "usage": dict(usage, wall_seconds=wall),
        "snapshots": [before, *seen, after],
        "judged_ms": measured["samples_ms"],
        "sustained": None,
    }
    return timed if seconds is None else judge_sustained(runner, timed, seconds, width, begin)


def judge_sustained(
    runner: Any, timed: dict[str, Any], seconds: float, width_ns: int, begin_s: float
) -> dict[str, Any]:
    """What `time_model` found, with what a sustained run is about: where it is steady, and why it is slower.

    Of the snapshots those before and after the run are left; the windows hold the others.
    """
    long_run, signs = runner.part("sustained"), runner.part("contamination")
    states = timed["snapshots"]
    windows = long_run.windows_of(timed["measured"], width_ns, states[1:], begin_s)
    found = long_run.judge(timed["measured"], windows, seconds)
    fell = long_run.clock_fell(windows, found["judged_from_s"])
    reasons = [*([fell] if fell else []), *signs.from_the_firmware(states, signs.HEAT_BITS)]
    told = any(state["clock_mhz"] or state["throttled"] for state in states)
    judged = found.pop("samples_ms")
    sustained = dict(
        found, throttled=bool(reasons) if told else None, throttle_signs=reasons, windows=windows
    )
    return dict(timed, judged_ms=judged, sustained=sustained, snapshots=[states[0], states[-1]])


@contextlib.contextmanager
def watched(program: str | None) -> Iterator[list[Any]]:
    """Take a snapshot a second in a process of its own; the list is filled when the block ends."""
    seen: list[Any] = []
    if program is None:
        yield seen
        return
    with tempfile.TemporaryFile() as lines:
        with subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=lines) as watcher:
            yield seen
            watcher.communicate(timeout=60)
        lines.seek(0)
        seen.extend(json.loads(line) for line in lines)


def find_warnings(
    runner: Any, timed: dict[str, Any], latency: dict[str, Any], threads: int, facts: dict[str, Any]
) -> list[str]:
    """What makes the timing doubtful, one sentence each."""
    sustained = timed["sustained"]
    warnings: list[str] = runner.part("contamination").find(
        timed["snapshots"],
        timed["usage"],
        latency,
        threads=threads,
        cores=facts["cores"],
        sustained=sustained is not None,
    )
    if sustained and not sustained["steady"]:
        seconds = timed["measured"]["seconds"]
        warnings.append(f"the latency did not become steady in {seconds:.0f} s: {LAST_THIRD}")
    if not sustained and not timed["warm_up"]["steady"]:
        warnings.append(
            f"the time of a call had not settled after {timed['warm_up']['seconds']:.0f} s of warm-up"
        )
    return warnings


def sustained_notes(sustained: dict[str, Any] | None) -> list[str]:
    """Which part of a sustained run its figures are of."""
    if sustained is None:
        return []
    if not sustained["steady"]:
        return [f"the latency never became steady: {LAST_THIRD}"]
    start = sustained["judged_from_s"]
    return [f"the figures are those of the steady part, from {start:.0f} s to the end of the run"]


def find_notes(
    manifest: dict[str, Any], model: Any, facts: dict[str, Any], latency: dict[str, Any]
) -> list[str]:
    """What a reader of the figures must know beside them."""
    threads = model.threads
    notes = [f"{name}: {reason}" for name, reason in latency["not_given"].items()]
    asked = manifest["runtime"]["threads"]
    if threads != asked:
        notes.append(f"threads: the bundle asks for {asked}, measured with {threads}")
    fallback = getattr(model.run, "fallback", None)
    if fallback:
        notes.append(
            f"{manifest['runtime']['name']} was not used, another runtime took its place: {fallback}"
        )
    providers = [name for name in getattr(model.run, "providers", ()) if name != "CPUExecutionProvider"]
    if providers:
        notes.append(f"onnxruntime runs it by {', '.join(providers)}")
    if facts["governor"] not in (None, "performance"):
        notes.append(f"the clock governor is {facts['governor']}, not performance")
    if facts["emulated"]:
        notes.append(f"emulated ({facts['emulated_how']}): these times say nothing about a device")
    return notes


def describe_bundle(manifest: dict[str, Any]) -> dict[str, Any]:
    """Which bundle was measured."""
    return {
        "name": manifest["name"],
        "target": manifest["device"]["target"],
        "profile": manifest["device"]["profile"],
        "artifact_sha256": manifest["files"][manifest["artifact"]]["sha256"],
    }


def describe_protocol(mode: str, threads: int, timed: dict[str, Any], samples: int) -> dict[str, Any]:
    """How it was measured."""
    return {
        "mode": mode,
        "threads": threads,
        "stream": "single: the next call starts when the last has ended",
        "timer": "time.perf_counter_ns around one call of the runtime",
        "inputs": f"{samples} golden samples in turn",
        "percentiles": "p90 and p99 by MLPerf early stopping at 99 % confidence; p50 plain",
        "warm_up": timed["warm_up"],
        "runs": timed["measured"]["runs"],
        "seconds": timed["measured"]["seconds"],
    }


def rounded(value: Any) -> Any:
    """The same data with every number at six digits behind the point: a nanosecond in milliseconds."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
