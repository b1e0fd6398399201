"""How far the cost model of each profile is off on published latencies; with `--fit`, fit it anew.

    python benchmarks/fit_profiles.py                 # median and 90th-percentile error of each profile
    python benchmarks/fit_profiles.py --fit rpi4      # coefficients for profiles/rpi4.yaml, and the interval
    python benchmarks/fit_profiles.py --fit rpi4 --runtime tflite

`data/latency.csv` holds one row for each (device, runtime, precision, threads, network), the median of the
releases of that runtime, with its source; `data/layers.csv` the layers of the networks, computed from their
public definitions. The rows are of ncnn, TFLite, ArmNN, XNNPACK, Paddle-Lite and ExecuTorch.

For onnxruntime hardly any is published on these boards: it is fitted to the rows of all runtimes, so the
interval is what they differ by, widened for onnxruntime (ONNXRUNTIME_EXTRA). float16 rows (ncnn computes in
float16 where the core can) help to fit the shares; they are not scored, since onnxruntime gains nothing from
float16 there. Another runtime is fitted to its own rows alone (see OWN_ROWS), as near to the coefficients of
onnxruntime on that board as they let it be: these decide what a few rows leave open.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from edgekit.artifact import RuntimeName
from edgekit.graph.layers import Layer
from edgekit.plan.cost_model import predict
from edgekit.target import Profile, load_profile

DATA = Path(__file__).parent / "data"
PRECISION = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
# Instructions that onnxruntime 1.31 retires for nine networks over LiteRT 2.3's (QEMU, Cortex-A72): 0.97 to
# 1.78, median 1.17. It has no Winograd convolution either, so a share stays below that of a good GEMM.
ONNXRUNTIME_EXTRA = 1.2
GEMM_SHARE = 0.8
NAMES = (
    "dense",
    "pointwise",
    "depthwise",
    "memory_gbs",
    "overhead_us",
    "serial_share",
    "int8_gain",
    "half_gain",
)
START = np.array([0.7, 0.5, 0.3, 4.0, 20.0, 0.3, 1.6, 1.5])
LOWEST = np.array([0.02, 0.02, 0.01, 0.2, 1.0, 0.02, 1.0, 0.8])
HIGHEST = np.array([GEMM_SHARE, GEMM_SHARE, GEMM_SHARE, 60.0, 200.0, 0.6, 4.0, 4.0])
FOLDS = 6
PRIOR = 0.05  # weight of a coefficient's distance from where the fit starts
# The rows that are a runtime's own. LiteRT runs XNNPACK's kernels, in float and in int8.
OWN_ROWS = {
    "tflite": ("TFLite", "TFLite(ruy)", "TFLite(XNNPACK,cTuning)", "XNNPACK"),
    "executorch": ("ExecuTorch",),
}
OWN_PRIOR = 0.15
OWN_HIGHEST = np.array([1.0, 1.0, 1.0, 60.0, 200.0, 0.6, 6.0, 4.0])
OWN_EXTRA = 1.3  # the own rows are of one or two families of networks: the interval is that much wider
# Gathered when the coefficients of onnxruntime stood already.
NOT_YET_ONNXRUNTIME = {"TFLite"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published latency."""

    clock_mhz: float
    runtime: str
    precision: str
    threads: int
    network: str
    latency_ms: float

    @property
    def family(self) -> str:
        """Networks that share their blocks are left out together: mobilenet_v2_1.0@224 is of mobilenet_v2."""
        return "_".join(self.network.split("@")[0].split("_")[:2])


@dataclass(frozen=True)
class Work:
    """A network's layers as arrays: kind; MACs, weight elements, elements read and written, times."""

    kinds: np.ndarray
    numbers: np.ndarray


def read_layers() -> dict[str, Work]:
    """The networks of data/layers.csv."""
    with (DATA / "layers.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = ("macs", "params", "input_elements", "output_elements", "count")
    found = {}
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        numbers = np.array([[float(row[column]) for column in columns] for row in own])
        found[network] = Work(np.array([row["kind"] for row in own]), numbers)
    return found


def read_rows(profile: str, runtime: str = "onnxruntime") -> list[Row]:
    """The published latencies that stand for this runtime on this profile."""
    with (DATA / "latency.csv").open(newline="") as stream:
        rows = [
            Row(
                clock_mhz=float(row["clock_mhz"]),
                runtime=row["runtime"],
                precision=row["precision"],
                threads=int(row["threads"]),
                network=row["network"],
                latency_ms=float(row["latency_ms"]),
            )
            for row in csv.DictReader(stream)
            if row["profile"] == profile
        ]
    if runtime == "onnxruntime":
        return [row for row in rows if row.runtime not in NOT_YET_ONNXRUNTIME]
    return [row for row in rows if row.runtime in OWN_ROWS.get(runtime, ())]


def fitted() -> list[tuple[str, RuntimeName]]:
    """Every profile and runtime with rows, and with coefficients in the profile."""
    with (DATA / "latency.csv").open(newline="") as stream:
        names = sorted({row["profile"] for row in csv.DictReader(stream)})
    return [
        (name, runtime)
        for name in names
        for runtime in load_profile(name).cost_model
        if read_rows(name, runtime)
    ]


def as_layers(work: Work, precision: str) -> list[Layer]:
    """The layers as the cost model takes them."""
    return [
        Layer(
            name=str(kind),
            op="",
            kind=kind,
            macs=int(macs),
            params=int(params),
            input_elements=int(read),
            output_elements=int(written),
            precision=PRECISION[precision],
            channels=0,
        )
        for kind, (macs, params, read, written, count) in zip(work.kinds, work.numbers, strict=True)
        for _ in range(int(count))
    ]


def fast_ms(x: np.ndarray, row: Row, work: Work, profile: Profile) -> float:
    """The formula of `edgekit.plan.cost_model` on arrays; `check_formula` holds them together."""
    share = np.full(len(work.kinds), x[1])
    share[work.kinds == "dense"] = x[0]
    share[np.isin(work.kinds, ["depthwise", "grouped"])] = x[2]
    gain = {"fp32": 1.0, "fp16": x[7], "int8": x[6]}[row.precision]
    threads = min(row.threads, profile.cores)
    gain *= threads / (1 + x[5] * (threads - 1))
    macs, elements, count = work.numbers[:, 0], work.numbers[:, 1:4].sum(axis=1), work.numbers[:, 4]
    working = macs / (row.clock_mhz * 1e3 * profile.macs_per_cycle * share * gain)
    moving = elements * BYTES[row.precision] / (x[3] * 1e6)
    return float(((np.maximum(working, moving) + x[4] / 1e3) * count).sum())


def start_of(profile: Profile, runtime: str) -> np.ndarray:
    """Where the fit starts: of another runtime than onnxruntime, at that one's coefficients on the board."""
    if runtime not in OWN_ROWS:
        return START
    model = profile.cost_model["onnxruntime"]
    return np.array([1.0 if key == "half_gain" else getattr(model, key) for key in NAMES])


def fit(rows: list[Row], works: dict[str, Work], profile: Profile, runtime: str) -> np.ndarray:
    """Coefficients with the least relative error, each family of networks weighing alike, outliers less."""
    own = runtime in OWN_ROWS
    start, highest, prior = (
        start_of(profile, runtime),
        OWN_HIGHEST if own else HIGHEST,
        OWN_PRIOR if own else PRIOR,
    )
    weights = family_weights(rows)

    def residuals(logs: np.ndarray) -> np.ndarray:
        x = np.exp(logs)
        errors = [np.log(fast_ms(x, row, works[row.network], profile) / row.latency_ms) for row in rows]
        return np.concatenate([np.array(errors) * weights, (logs - np.log(start)) * prior])

    bounds = (np.log(LOWEST), np.log(highest))
    return np.exp(
        least_squares(
            residuals,
            np.log(np.clip(start, LOWEST * 1.01, highest * 0.99)),
            bounds=bounds,
            loss="soft_l1",
            f_scale=0.2,
        ).x
    )


def family_weights(rows: list[Row]) -> np.ndarray:
    """A family's rows weigh together as the root of their number."""
    counts = Counter(row.family for row in rows)
    return np.array([counts[row.family] ** -0.25 for row in rows])


def held_out(
    rows: list[Row], works: dict[str, Work], profile: Profile, runtime: str
) -> tuple[np.ndarray, np.ndarray]:
    """Published over predicted for rows whose family the fit has not seen, and the weights of these rows."""
    families = sorted({row.family for row in rows})
    ratios, scored = [], []
    for fold in range(min(FOLDS, len(families))):
        left_out = set(families[fold::FOLDS])
        x = fit([row for row in rows if row.family not in left_out], works, profile, runtime)
        for row in rows:
            if row.family in left_out and row.precision != "fp16":
                ratios.append(row.latency_ms / fast_ms(x, row, works[row.network], profile))
                scored.append(row)
    return np.array(ratios), family_weights(scored)


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value below which `share` of the weight lies."""
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(cumulated, share)])


def check_formula(
    x: np.ndarray, rows: list[Row], works: dict[str, Work], profile: Profile, runtime: RuntimeName
) -> None:
    """`fast_ms` and `predict` are one formula."""
    changed = with_coefficients(profile, runtime, x)
    for row in rows[:20]:
        if row.precision != "fp16" and row.clock_mhz == profile.clock_mhz:
            layers = as_layers(works[row.network], row.precision)
            cost = predict(layers, changed, runtime=runtime, threads=row.threads)
            assert cost.latency_p50_ms is not None
            np.testing.assert_allclose(
                cost.latency_p50_ms.value, fast_ms(x, row, works[row.network], profile)
            )


def with_coefficients(profile: Profile, runtime: RuntimeName, x: np.ndarray) -> Profile:
    """The profile with the coefficients of `x` for this runtime."""
    values = dict(zip(NAMES, map(float, x), strict=True))
    values.pop("half_gain")
    model = profile.cost_model["onnxruntime"].model_copy(update=values)
    return profile.model_copy(update={"cost_model": {**profile.cost_model, runtime: model}})


def print_fit(name: str, runtime: RuntimeName, works: dict[str, Work]) -> None:
    """Coefficients to put into the profile."""
    profile, rows = load_profile(name), read_rows(name, runtime)
    if not rows:
        raise SystemExit(f"{name}: no latencies of {runtime} are in {DATA / 'latency.csv'}")
    x = fit(rows, works, profile, runtime)
    check_formula(x, rows, works, profile, runtime)
    ratios, weights = held_out(rows, works, profile, runtime)
    low, high = (weighted_quantile(ratios, weights, share) for share in (0.05, 0.95))
    error = np.abs(1 / ratios - 1)
    print(f"{name}, {runtime}: {len(rows)} rows, families left out: median error {np.median(error):.0%},")
    print(f"  90 % of rows within {np.quantile(error, 0.9):.0%}")
    for key, value in zip(NAMES, x, strict=True):
        print(f"    {key}: {value:.3g}")
    wider = (1 / OWN_EXTRA, OWN_EXTRA) if runtime in OWN_ROWS else (1.0, ONNXRUNTIME_EXTRA)
    print(f"    low: {min(low, 1.0) * wider[0]:.2f}\n    high: {max(high, 1.0) * wider[1]:.2f}")


def print_table(works: dict[str, Work]) -> None:
    """What the profiles as they are make of the published rows."""
    head = f"{'rows':>5}{'networks':>10}{'median error':>14}{'90 %':>7}{'in interval':>13}"
    print(f"{'profile':18}{'runtime':12}{head}")
    for name, runtime in fitted():
        profile = load_profile(name)
        model = profile.cost_model[runtime]
        rows = [row for row in read_rows(name, runtime) if row.precision != "fp16"]
        ratios = []
        for row in rows:
            at_clock = profile.model_copy(update={"clock_mhz": row.clock_mhz})
            layers = as_layers(works[row.network], row.precision)
            cost = predict(layers, at_clock, runtime=runtime, threads=row.threads)
            assert cost.latency_p50_ms is not None
            ratios.append(row.latency_ms / cost.latency_p50_ms.value)
        error = np.abs(1 / np.array(ratios) - 1)
        inside = np.mean([model.low <= ratio <= model.high for ratio in ratios])
        networks = len({row.network for row in rows})
        print(
            f"{name:18}{runtime:12}{len(rows):5}{networks:10}{np.median(error):14.0%}"
            f"{np.quantile(error, 0.9):7.0%}{inside:13.0%}"
        )


def main() -> None:
    """Print the table, or a fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", metavar="PROFILE", help="fit this profile anew")
    parser.add_argument("--runtime", choices=["onnxruntime", *OWN_ROWS], default="onnxruntime")
    arguments = parser.parse_args()
    works = read_layers()
    if arguments.fit:
        print_fit(arguments.fit, arguments.runtime, works)
    else:
        print_table(works)


if __name__ == "__main__":
    main()
