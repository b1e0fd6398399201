"""Records as builds and benchmarks make them, for the tests of the report."""

import random
from dataclasses import replace
from pathlib import Path

from edgekit.cost import Cost, Figure, judge, outcome
from edgekit.ondevice.runner import facts, percentiles
from edgekit.ondevice.runner import sustained as long_run
from edgekit.result import BuildResult, Parity, Quality, Rival, Route, Tried

HOSTILE = "<script>alert('x')</script> & \"q\" \x1b[31mred\x07 \u202etfel ünï-日本 " + "very_long_" * 40


def measured(value, source="this machine, protocol quick"):
    return Figure(value=value, how="measured", source=source)


def predicted(value, low, high):
    return Figure(value=value, how="predicted", source="cost model of profile rpi4", low=low, high=high)


def limit(value):
    return Figure(value=value, how="limit", source="targets/rpi4.yaml")


BUDGET = Cost(
    latency_p90_ms=limit(20.0),
    peak_memory_mb=limit(256.0),
    size_mb=limit(4.0),
    drop=limit(0.01),
    class_drop=limit(0.03),
)


def candidate(name, latency_ms, size_mb, drop, *, memory_mb=48.0, budget=BUDGET, here=True, **more):
    """A built candidate: latency predicted, the rest measured."""
    cost = Cost(
        latency_p50_ms=predicted(latency_ms * 0.9, latency_ms * 0.6, latency_ms * 1.4),
        latency_p90_ms=predicted(latency_ms, latency_ms * 0.7, latency_ms * 1.5),
        peak_memory_mb=measured(memory_mb),
        size_mb=measured(size_mb),
        drop=measured(drop, "1000 test samples"),
        class_drop=measured(drop * 2, "1000 test samples"),
    )
    verdicts = tuple(judge(cost, budget))
    own = {
        "recipe": {"steps": []},
        "here": Cost(latency_p50_ms=measured(latency_ms / 9), latency_p90_ms=measured(latency_ms / 8))
        if here
        else Cost(),
        "quality": Quality(
            kind="accuracy", score=0.984 - drop, drop=drop, class_drop=drop * 2, worst_class="8", samples=1000
        ),
        "outcome": outcome(list(verdicts)),
        "parities": (Parity(stage="torch -> onnx", snr_db=132.4, max_abs=2.4e-6, top1=1.0, floor_db=60.0),),
        "reason": "the mildest recipe inside the budget",
    }
    return Tried(name=name, cost=cost, verdicts=verdicts, **{**own, **more})


FLOAT = candidate(
    "float32", 38.2, 1.12, 0.0, reason="latency p90 38.2 ms (26.7 ms to 57.3 ms) predicted, limit 20 ms"
)
INT8 = candidate(
    "int8",
    12.1,
    0.31,
    0.0031,
    memory_mb=41.5,
    recipe={"steps": [{"step": "quantize", "route": "ort-static"}]},
    parities=(
        Parity(stage="torch -> onnx", snr_db=float("inf"), max_abs=0.0, top1=1.0, floor_db=60.0),
        Parity(stage="float32 -> int8", snr_db=24.2, max_abs=0.81, top1=0.991, floor_db=10.0),
    ),
    routes=(
        Route(
            name="ort-static",
            chosen=True,
            reason="fastest inside the drop",
            latency_ratio=2.31,
            size_ratio=3.61,
            drop=0.0031,
            left_in_float=0,
        ),
        Route(
            name="nncf",
            chosen=False,
            reason="1.12x slower than ort-static at the same drop",
            latency_ratio=2.06,
            size_ratio=3.58,
            drop=0.0031,
            left_in_float=2,
        ),
        Route(
            name="ort-dynamic",
            chosen=False,
            reason="slower than float32 here",
            latency_ratio=0.31,
            size_ratio=3.9,
            drop=0.0012,
            left_in_float=None,
        ),
    ),
)
PRUNED = Tried(
    name="pruned to 50% + int8",
    recipe={"steps": [{"step": "prune", "macs": 0.5}, {"step": "distill"}, {"step": "quantize"}]},
    cost=Cost(
        latency_p50_ms=predicted(5.4, 3.9, 8.8),
        latency_p90_ms=predicted(6.1, 4.3, 9.2),
        size_mb=predicted(0.17, 0.16, 0.18),
    ),
    realised=False,
    reason="not needed: a milder recipe fits",
)


def rival(runtime, latency_ms, ratio, reason, *, memory_mb=48.0, chosen=False):
    """The float network in one of the target's runtimes: latency predicted, memory carried over."""
    cost = Cost(
        latency_p90_ms=predicted(latency_ms, latency_ms * 0.7, latency_ms * 1.5),
        peak_memory_mb=predicted(memory_mb, memory_mb * 0.75, memory_mb * 1.25),
        size_mb=measured(1.12),
    )
    parity = Parity(stage=f"onnx -> {runtime}", snr_db=124.8, max_abs=8.1e-6, top1=1.0, floor_db=50.0)
    return Rival(
        runtime=runtime,
        threads=4,
        chosen=chosen,
        reason=reason,
        cost=cost,
        parity=None if runtime == "onnxruntime" else parity,
        ratio=ratio,
    )


RIVALS = (
    rival("tflite", 44.7, 1.17, "1.17 times the time of onnxruntime, predicted", memory_mb=21.0),
    rival("onnxruntime", 38.2, 1.0, "fastest with 4 threads, predicted", chosen=True),
    Rival(
        runtime="openvino",
        chosen=False,
        reason="not tried: network.py:12: openvino has no operator `Bucketize`",
    ),
)


def build(*, tried=(FLOAT, INT8, PRUNED), shipped=1, budget=BUDGET, **more):
    """A build as `edgekit build examples/digits/task.py --target rpi4` comes out."""
    own = {
        "task": "examples/digits/task.py",
        "target": "rpi4",
        "profile": "rpi4",
        "runtime": "onnxruntime",
        "threads": 4,
        "runtimes": RIVALS,
        "outcome": tried[shipped].outcome if shipped is not None else "NOT MET",
        "bundle": Path("dist/digits-rpi4"),
        "versions": {"torch": "2.13.0", "onnx": "1.23.0", "onnxruntime": "1.31.1", "nncf": "3.4.0"},
        "machine": "AMD EPYC, 2 cores, x86_64",
        "seconds": 93.4,
    }
    return BuildResult(tried=tried, shipped=shipped, budget=budget, **{**own, **more})


def met_build():
    cost = INT8.cost | Cost(latency_p50_ms=measured(11.0), latency_p90_ms=measured(12.1))
    tried = replace(INT8, cost=cost, here=Cost(), verdicts=tuple(judge(cost, BUDGET)), outcome="MET")
    return build(tried=(FLOAT, tried, PRUNED))


def missed_build():
    tried = (
        candidate(
            "float32", 160.0, 14.2, 0.0, reason="latency p90 160 ms (112 ms to 240 ms) predicted, limit 20 ms"
        ),
        candidate(
            "int8", 61.0, 3.7, 0.013, reason="latency p90 61 ms (42.7 ms to 91.5 ms) predicted, limit 20 ms"
        ),
    )
    relax = (
        "latency p90 61 ms (42.7 ms to 91.5 ms) predicted, limit 20 ms; met at a limit of 91.5 ms, "
        "or measure it on the device",
        "quality drop 1.30 % measured, limit 1.00 %; met at a limit of 1.30 %",
    )
    warnings = ("no pretrained weights for `resnet18` could be had: the weights are random",)
    return build(tried=tried, relax=relax, warnings=warnings, reused=("convert", "quantize"))


def unproven_build():
    return build(
        tried=(FLOAT, candidate("int8", 15.1, 0.31, 0.0031, reason="latency p90 lies across its limit"))
    )


def bare_build():
    """No budget, no data, nothing measured but the size; one runtime only."""
    tried = Tried(
        name="float32",
        recipe={},
        cost=Cost(size_mb=measured(1.12)),
        quality=Quality(kind="none", score=None, drop=None),
    )
    return build(
        tried=(replace(tried, outcome="MET"),),
        shipped=0,
        budget=Cost(),
        runtimes=RIVALS[1:2],
        machine="",
        seconds=0.2,
    )


def hostile_build():
    """Names and figures as nobody would choose them."""
    strange = Cost(
        latency_p90_ms=Figure(
            value=float("inf"), how="predicted", source=HOSTILE, low=float("nan"), high=float("inf")
        ),
        peak_memory_mb=measured(float("nan"), HOSTILE),
        size_mb=measured(1e15, HOSTILE),
        drop=measured(float("inf"), HOSTILE),
    )
    parity = Parity(stage=HOSTILE, snr_db=float("nan"), max_abs=float("inf"), top1=None, floor_db=60.0)
    tried = Tried(
        name=HOSTILE,
        recipe={"steps": [{"step": HOSTILE, HOSTILE: float("inf")}]},
        cost=strange,
        here=strange,
        quality=Quality(kind=HOSTILE, score=float("-inf"), drop=float("inf"), worst_class=HOSTILE, samples=0),
        verdicts=tuple(judge(strange, BUDGET)),
        outcome="NOT MET",
        parities=(parity,),
        routes=(
            Route(name=HOSTILE, chosen=True, reason=HOSTILE, latency_ratio=float("inf"), size_ratio=0.0),
        ),
        reason=HOSTILE,
    )
    return BuildResult(
        task=HOSTILE,
        target=HOSTILE,
        profile=HOSTILE,
        runtime=HOSTILE,
        threads=1,
        budget=BUDGET,
        tried=(tried, FLOAT),
        shipped=0,
        outcome="NOT MET",
        bundle=Path("dist") / HOSTILE.replace("/", "_"),
        runtimes=(
            Rival(
                runtime=HOSTILE,
                chosen=True,
                reason=HOSTILE,
                threads=1,
                cost=strange,
                here=strange,
                parity=parity,
                ratio=float("inf"),
            ),
            Rival(runtime=HOSTILE, chosen=False, reason=HOSTILE, ratio=float("nan")),
        ),
        relax=(HOSTILE,),
        warnings=(HOSTILE,),
        reused=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
        machine=HOSTILE,
        seconds=float("nan"),
    )


BUILDS = {
    "met": met_build,
    "predicted": build,
    "missed": missed_build,
    "unproven": unproven_build,
    "bare": bare_build,
    "hostile": hostile_build,
}


def latencies(n=2000, seed=0):
    """Samples with a drift and stragglers, as boards give them."""
    chance = random.Random(seed)
    return [
        round(
            1.62
            + 0.05 * chance.gammavariate(2, 1)
            + 0.00003 * i
            + (chance.random() < 0.01) * chance.uniform(1, 4),
            6,
        )
        for i in range(n)
    ]


def bench(*, samples=None, machine=None, warnings=(), notes=(), mode="quick"):
    """A record of `run.py --bench`; its statistics and facts come from the code that runs on a device."""
    samples = latencies() if samples is None else samples
    latency = percentiles.summarize(samples)
    return {
        "schema": "edgekit.bench/1",
        "bundle": {"name": "digits-rpi4", "target": "rpi4", "profile": "rpi4", "artifact_sha256": "ab" * 32},
        "protocol": {
            "mode": mode,
            "threads": 4,
            "stream": "single: the next call starts when the last has ended",
            "timer": "time.perf_counter_ns around one call of the runtime",
            "inputs": "8 golden samples in turn",
            "percentiles": "p90 and p99 by MLPerf early stopping at 99 % confidence; p50 plain",
            "warm_up": {"runs": 840, "seconds": 2.0, "steady": True},
            "runs": len(samples),
            "seconds": round(sum(samples) / 1000, 3),
        },
        "runtime_import_ms": 153.2,
        "load_ms": 22.4,
        "first_call_ms": 3.91,
        "latency": {**latency, "max_of_all_runs_ms": max(samples)},
        "memory": {"before_load_rss_mb": 31.2, "peak_rss_mb": 43.7, "artifact_mb": 0.31},
        "golden_lowest_snr_db": 71.2,
        "facts": {**facts.gather(("numpy", "onnxruntime")), **(machine or {})},
        "snapshots": [facts.snapshot(), facts.snapshot()],
        "usage": {"cpu_seconds": 3.4, "involuntary_switches": 3.0, "wall_seconds": 3.5},
        "warnings": list(warnings),
        "notes": [*(f"{name}: {reason}" for name, reason in latency["not_given"].items()), *notes],
        "contaminated": bool(warnings),
        "samples_ms": samples,
    }


PI4 = {
    "board": "Raspberry Pi 4 Model B Rev 1.4",
    "arch": "aarch64",
    "core": "Cortex-A72",
    "cpu_model": "Cortex-A72",
    "cpu_part": "0x41/0xd08",
    "cores": 4,
    "usable_cores": 4,
    "memory_total_mb": 3980.0,
    "governor": "performance",
    "max_clock_mhz": 1800.0,
    "cpu_flags": "fp asimd evtstrm crc32 cpuid".split(),
    "virtual_machine": False,
    "emulated": False,
    "emulated_how": None,
}


def sustained(courses=None, *, seconds=600.0, warm=True, **more):
    """A record of `run.py --bench --sustained 600` on a board that becomes hot, or tells nothing."""
    climb = [10.0 + 0.15 * number for number in range(20)]
    courses = [10.0] * 20 + climb + [13.0] * 80 if courses is None else courses
    width_ns = round(seconds * 1e9 / len(courses))
    starts = [width_ns * number + width_ns * run // 30 for number in range(len(courses)) for run in range(30)]
    samples = [latency + 0.01 * (run % 7) for latency in courses for run in range(30)]
    windows = {number: (30, latency + 0.06) for number, latency in enumerate(courses)}
    measured = {"starts_ns": starts, "samples_ms": samples, "windows": windows}
    states = [
        {
            "clock_s": (number + 0.5) * width_ns / 1e9,
            "temperature_c": 80.0 - 35.0 * 0.95**number if warm else None,
            "clock_mhz": 18_000.0 / latency if warm else None,
            "throttled": "0x0" if warm else None,
            "governor": "ondemand",
        }
        for number, latency in enumerate(courses)
    ]
    shown = long_run.windows_of(measured, width_ns, states, 0.0)
    found = long_run.judge(measured, shown, seconds)
    record = bench(samples=found.pop("samples_ms"), mode="sustained", **more)
    fell = long_run.clock_fell(shown, found["judged_from_s"])
    signs = {"throttled": bool(fell) if warm else None, "throttle_signs": [fell] if fell else []}
    record["protocol"].update(runs=len(samples), seconds=seconds)
    return {**record, "sustained": {**found, **signs, "windows": shown}}


def manifest(budget=BUDGET, **device):
    """The manifest of the bundle that `bench` measured, as plain data."""
    board = {
        "target": "rpi4",
        "profile": "rpi4",
        "soc": "BCM2711",
        "core": "Cortex-A72",
        "board": "Raspberry Pi 4 Model B",
        "arch": "aarch64",
        "cores": 4,
        "local": False,
    }
    return {
        "schema": "edgekit.bundle/1",
        "name": "digits-rpi4",
        "edgekit": "0.1.0",
        "runtime": {"name": "onnxruntime", "version": "1.31.1", "threads": 4},
        "device": {**board, **device},
        "artifact": "model.onnx",
        "inputs": [{"name": "image", "shape": [1, 3, 32, 32], "dtype": "float32", "range": [0.0, 1.0]}],
        "outputs": [{"name": "logits", "shape": [1, 10], "dtype": "float32", "range": None}],
        "recipe": {"steps": [{"step": "quantize"}]},
        "cost": INT8.cost.as_dict(),
        "here": {},
        "budget": budget.as_dict(),
        "quality": {"kind": "accuracy", "score": 0.981, "drop": 0.0031, "samples": 1000},
        "versions": {"torch": "2.13.0"},
        "requirements": {"onnxruntime": "1.31.1", "numpy": "2.4.6"},
        "golden": {"file": "golden.npz", "samples": 8, "min_snr_db": 30.0},
        "files": {"model.onnx": {"sha256": "ab" * 32, "bytes": 310_000}},
    }
