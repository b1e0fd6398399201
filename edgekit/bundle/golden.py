"""Golden samples: real inputs and what the artifact made of them here, by which a device checks itself."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.artifact import Artifact
from edgekit.bundle.manifest import Manifest, confine
from edgekit.errors import BadInput, VerificationFailed
from edgekit.ondevice.runner.check import signal_to_noise_db
from edgekit.ondevice.runner.inputs import WrongInput, read_golden

Arrays = Mapping[str, np.ndarray]

MOST_SAMPLES = 8
MOST_BYTES = 32_000_000  # of inputs: eight photographs of 1000x1000 pixels, or one large one

# How far the outputs on a device may be from those here (docs/decisions/golden.md): another instruction
# set adds in another order and rounds other ties, and in an int8 network each step of one unit spreads
# through the layers behind it. How much rounding matters to a network shows in what the runtime's own
# optimiser does to it, which puts integer for float arithmetic between Q/DQ pairs. The floor is MARGIN_DB
# below the lowest such ratio, and never above CEILING_DB, 0.3 % of the signal. Wrong weights or a broken
# kernel cost more than that: outputs with nothing in common are at 0 dB.
CEILING_DB = 50.0
# Of what is computed in 16 bits there and in 32 here: 60 dB an operation, over layers. TensorRT does so with
# what is not quantized in int8 too.
HALF_CEILING_DB = 30.0
MARGIN_DB = 6.0
LEAST_DB = 6.0
HALF = ("f16", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class GoldenSamples:
    """What is written to golden.npz.

    Attributes:
        calls: inputs by name.
        outputs: of each call, in the order of the graph.
        min_snr_db: what each output has to reach on a device.
    """

    calls: tuple[Arrays, ...]
    outputs: tuple[list[np.ndarray], ...]
    min_snr_db: float


def answer(artifact: Artifact, calls: Sequence[Arrays], parity_db: float | None = None) -> GoldenSamples:
    """Run some of the calls, evenly spread, through the artifact as users run it.

    Args:
        artifact: run by its own runtime, on this machine.
        calls: real inputs by name.
        parity_db: how close it is to the float network; what the floor rests on where the runtime knows no
            other way to run it.

    Raises:
        BadInput: the runtime refuses the artifact or the calls.
        VerificationFailed: an output is not finite.
    """
    chosen = tuple(choose(calls))
    run = artifact.open()
    outputs = tuple(run(call) for call in chosen)
    for number, arrays in enumerate(outputs):
        for name, array in zip(artifact.outputs, arrays, strict=True):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                what = f"output `{name}` of golden sample {number} holds NaN or infinite values"
                raise VerificationFailed(what, where="the artifact", todo="look at the input that gives it")
    return GoldenSamples(chosen, outputs, _floor_db(artifact, chosen, outputs, parity_db))


def choose(calls: Sequence[Arrays]) -> list[Arrays]:
    """At most MOST_SAMPLES of the calls, from the first to the last, and no more than MOST_BYTES of them."""
    count = min(MOST_SAMPLES, len(calls))
    places = [round(number * (len(calls) - 1) / max(1, count - 1)) for number in range(count)]
    chosen: list[Arrays] = []
    total = 0
    for place in places:
        total += sum(array.nbytes for array in calls[place].values())
        if chosen and total > MOST_BYTES:
            break
        chosen.append(calls[place])
    return chosen


def _floor_db(
    artifact: Artifact, calls: Sequence[Arrays], outputs: Sequence[list[np.ndarray]], parity_db: float | None
) -> float:
    reference = artifact.open(reference=True)
    ratios = [
        signal_to_noise_db(expected, got)
        for call, optimised in zip(calls, outputs, strict=True)
        for expected, got in zip(reference(call), optimised, strict=True)
        if expected.shape == got.shape
    ]
    lowest = min(ratios, default=math.inf)
    if math.isinf(lowest) and parity_db is not None:
        lowest = parity_db
    ceiling = HALF_CEILING_DB if artifact.options.get("precision") in HALF else CEILING_DB
    return float(min(ceiling, max(LEAST_DB, lowest - MARGIN_DB)) // 1)


def first_call(bundle: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """The inputs of a bundle's first golden sample; the bundle may be anyone's.

    Raises:
        BadInput: there is none, or the file is damaged.
    """
    inputs = [{"name": tensor.name} for tensor in manifest.inputs]
    try:
        call: dict[str, np.ndarray] = read_golden(
            str(confine(bundle, manifest.golden.file)), inputs, (), [0]
        )[0][0]
    except WrongInput as error:
        raise BadInput(str(error), todo="copy the bundle again") from error
    return call


def golden_npz(samples: GoldenSamples) -> bytes:
    """The samples as .npz: `s0_i1` is input 1 of sample 0, `s0_o0` its output 0.

    The same samples give the same bytes.
    """
    arrays: dict[str, np.ndarray] = {}
    for s, (call, outputs) in enumerate(zip(samples.calls, samples.outputs, strict=True)):
        arrays.update({f"s{s}_i{i}": array for i, array in enumerate(call.values())})
        arrays.update({f"s{s}_o{o}": array for o, array in enumerate(outputs)})
    buffer = io.BytesIO()
    # Not numpy.savez: stored, with the date of the format's beginning, no compressor's version can show.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content.getvalue())
    return buffer.getvalue()
