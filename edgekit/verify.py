"""Numeric parity between the stages of a conversion; when it is missing, the first node that diverges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgekit.artifact import Artifact
from edgekit.errors import VerificationFailed
from edgekit.graph.classifier import is_classifier
from edgekit.graph.run import node_outputs, observe, opened
from edgekit.result import Parity
from edgekit.signal import snr_db
from edgekit.task.call import call_module

if TYPE_CHECKING:
    import torch

Call = Mapping[str, np.ndarray]
Outputs = Sequence[np.ndarray]

FLOAT_FLOOR_DB = 50.0  # two float32 implementations of one network differ by rounding: 90 dB and more
OPTIMISER_FLOOR_DB = 10.0  # integer kernels round differently; weights quantized once more fall below 5 dB
SAMPLES = 8


def run_torch(network: torch.nn.Module, calls: Iterable[Call]) -> list[list[np.ndarray]]:
    """The outputs of a torch module for each call, flattened to arrays."""
    return [list(call_module(network, tuple(call.values())).values()) for call in calls]


def run_onnx(
    model: onnx.ModelProto, calls: Iterable[Call], *, optimise: bool = True
) -> list[list[np.ndarray]]:
    """The outputs of a graph for each call, at the optimisation level that users run by default."""
    run = opened(model, optimise=optimise)
    return [run(call) for call in calls]


def parity(
    stage: str,
    reference: Sequence[Outputs],
    outputs: Sequence[Outputs],
    *,
    floor_db: float,
    classifier: bool = False,
) -> Parity:
    """Compare a stage's outputs with those of the stage before.

    Args:
        stage: what is compared, "torch -> onnx".
        reference: per call, the outputs of the stage before.
        outputs: per call, the outputs of this stage.
        floor_db: the signal-to-noise ratio that has to be reached.
        classifier: the only output is a row of class scores, whose first place is compared too.

    Raises:
        VerificationFailed: number, shape or finiteness of the outputs differ.
    """
    before = [array for call in reference for array in call]
    after = [array for call in outputs for array in call]
    _check_shapes(stage, before, after)
    return Parity(
        stage=stage,
        snr_db=_worst_output(reference, outputs),
        max_abs=max((_largest_difference(a, b) for a, b in zip(before, after, strict=True)), default=0.0),
        top1=_same_top1(reference, outputs) if classifier else None,
        floor_db=floor_db,
    )


def _worst_output(reference: Sequence[Outputs], outputs: Sequence[Outputs]) -> float:
    """The ratio of the output that has the lowest over all calls: a large one must not hide a small one.

    Class numbers and other integers count only where nothing else is given: a tie may fall either way.
    """
    columns = zip(*(zip(*calls, strict=True) for calls in (reference, outputs)), strict=True)
    ratios = [(before[0].dtype.kind == "f", snr_db(before, after)) for before, after in columns]
    floats = [ratio for is_float, ratio in ratios if is_float]
    return min(floats or [ratio for _, ratio in ratios], default=math.inf)


def _check_shapes(stage: str, before: Outputs, after: Outputs) -> None:
    shapes = [[array.shape for array in arrays] for arrays in (before, after)]
    if shapes[0] != shapes[1]:
        raise VerificationFailed(
            f"outputs have shapes {shapes[1][:4]}, expected {shapes[0][:4]}", where=stage
        )
    for was, now in zip(before, after, strict=True):
        if now.dtype.kind == "f" and not np.isfinite(now[np.isfinite(was)]).all():
            raise VerificationFailed("outputs are NaN or infinite that were finite before", where=stage)


def _largest_difference(before: np.ndarray, after: np.ndarray) -> float:
    if not before.size:
        return 0.0
    with np.errstate(invalid="ignore"):  # infinite values that agree
        difference = np.abs(before.astype(np.float64) - after.astype(np.float64))
    return float(difference[np.isfinite(difference)].max(initial=0.0))


def _same_top1(reference: Sequence[Outputs], outputs: Sequence[Outputs]) -> float:
    """Share of samples with the same first class."""
    same = [a.argmax(1) == b.argmax(1) for (a,), (b,) in zip(reference, outputs, strict=True)]
    return float(np.mean(np.concatenate(same)))


def check_export(network: torch.nn.Module, model: onnx.ModelProto, calls: Sequence[Call]) -> Parity:
    """The exported graph, as users run it, against the torch module.

    Raises:
        VerificationFailed: it misses FLOAT_FLOOR_DB; names the first node that diverges.
    """
    calls = calls[:SAMPLES]
    outputs = run_onnx(model, calls)
    found = parity(
        "torch -> onnx",
        run_torch(network, calls),
        outputs,
        floor_db=FLOAT_FLOOR_DB,
        classifier=is_classifier(model, outputs[0]),
    )
    if found.snr_db >= FLOAT_FLOOR_DB:
        return found
    values = traced_values(network, tuple(calls[0].values()))
    raise _diverges(found, first_divergence(model, values, calls[0], FLOAT_FLOOR_DB))


def check_graph(
    stage: str, before: onnx.ModelProto, after: onnx.ModelProto, calls: Sequence[Call], floor_db: float
) -> Parity:
    """A rewritten graph, as users run it, against the graph before with the optimiser off.

    Raises:
        VerificationFailed: it misses `floor_db`; names the first node that diverges.
    """
    calls = calls[:SAMPLES]
    reference = run_onnx(before, calls, optimise=False)
    classifier = is_classifier(before, reference[0])
    found = parity(stage, reference, run_onnx(after, calls), floor_db=floor_db, classifier=classifier)
    if found.snr_db >= floor_db:
        return found
    raise _diverges(found, first_divergence(after, observe(before, calls[0]), calls[0], floor_db))


def check_artifact(
    stage: str, before: onnx.ModelProto, artifact: Artifact, calls: Sequence[Call], floor_db: float
) -> Parity:
    """An artifact, as its runtime runs it here, against the float graph with the optimiser off.

    Raises:
        VerificationFailed: it misses `floor_db`; names the first node that diverges, where the artifact is an
            ONNX file.
        OutsideFailure: the runtime is not installed here.
    """
    calls = calls[:SAMPLES]
    reference = run_onnx(before, calls, optimise=False)
    run = artifact.open()
    outputs = [run(call) for call in calls]
    classifier = is_classifier(before, reference[0])
    found = parity(stage, reference, outputs, floor_db=floor_db, classifier=classifier)
    if found.snr_db >= floor_db:
        return found
    node = None
    if artifact.path.suffix == ".onnx":
        node = first_divergence(onnx.load(artifact.path), observe(before, calls[0]), calls[0], floor_db)
    raise _diverges(found, node)


def _diverges(found: Parity, node: str | None) -> VerificationFailed:
    place = f"the first node that diverges is `{node}`" if node else "no single node could be named"
    return VerificationFailed(
        f"outputs agree to {found.snr_db:.1f} dB only, {found.floor_db:.0f} dB are needed; {place}",
        where=found.stage,
        todo="report the model",
    )


def first_divergence(
    model: onnx.ModelProto, reference: Mapping[str, np.ndarray], call: Call, floor_db: float
) -> str | None:
    """The first node, in order, whose value differs from the reference value of the same name.

    Args:
        model: the graph under suspicion.
        reference: values of the stage before, by name.
        call: the inputs that both saw.
        floor_db: a value below this ratio diverges.
    """
    shared = [name for name in node_outputs(model.graph) if name in reference]
    values = observe(model, call, shared) if shared else {}
    writer = {name: node.name or node.op_type for node in model.graph.node for name in node.output}
    for name in shared:
        expected, value = reference[name], values.get(name)
        if value is None or value.dtype.kind != "f" or value.size != expected.size:
            continue
        if snr_db([expected.reshape(-1)], [value.reshape(-1)]) < floor_db:
            return str(writer[name])
    return None


def traced_values(network: torch.nn.Module, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Every intermediate value of a torch module, by the name that the dynamo exporter gives it."""
    import torch
    from torch.fx.interpreter import Interpreter

    values: dict[str, np.ndarray] = {}

    class Recorder(Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                values[n.name] = result.detach().numpy().copy()
            return result

    tensors = tuple(torch.from_numpy(array.copy()) for array in inputs)
    try:
        program = torch.export.export(network, tensors)
    except Exception:  # noqa: BLE001 - only the name of a node is at stake; the failure itself is reported
        return {}
    with torch.no_grad():
        Recorder(program.run_decompositions().module()).run(*tensors)
    return values
