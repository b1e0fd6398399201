"""Run an ONNX graph on this machine, as users will run it or with every intermediate value in sight."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from edgekit.artifact import Arrays, Run
from edgekit.errors import BadInput, first_line

AT_INPUTS = "the model, at these inputs"  # where a call fails of a graph that was opened


def open_session(
    model: onnx.ModelProto | bytes, *, threads: int = 1, optimise: bool = True
) -> ort.InferenceSession:
    """An onnxruntime session on the CPU.

    Args:
        model: the graph, or its serialised bytes.
        threads: intra-op threads.
        optimise: at the level users run (all), or with the optimiser off, which is the reference.

    Raises:
        BadInput: onnxruntime refuses the graph; the line is onnxruntime's own.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with refused("the model"):
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def refuse_crash(model: onnx.ModelProto) -> None:
    """Open the model in a process of its own, because onnxruntime can die of a rewritten graph.

    (onnxruntime 1.31 does so on float16 LSTMs and on some float16 attention blocks, at full optimisation.)

    Raises:
        BadInput: the process died.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        # An exception is no crash: it comes back as a plain line when the model is opened here.
        program = (
            "import sys, onnxruntime as o; s = o.SessionOptions(); s.log_severity_level = 4\n"
            "try: o.InferenceSession(sys.argv[1], s, providers=['CPUExecutionProvider'])\n"
            "except Exception: pass"
        )
        done = subprocess.run([sys.executable, "-c", program, path], check=False, capture_output=True)
    if done.returncode < 0:
        raise BadInput(f"onnxruntime dies of it ({signal.Signals(-done.returncode).name})", where="the model")


@contextmanager
def refused(where: str) -> Iterator[None]:
    """Turn what onnxruntime raises, whatever its class, into one line."""
    try:
        yield
    except Exception as error:
        raise BadInput(f"onnxruntime refuses it: {first_line(error)}", where=where) from error


def run(session: ort.InferenceSession, inputs: Arrays) -> list[np.ndarray]:
    """The outputs for one call, in the order of the graph.

    Raises:
        BadInput: the inputs do not fit the graph, or a node fails on them.
    """
    with refused(AT_INPUTS):
        return [np.asarray(output) for output in session.run(None, dict(inputs))]


def opened(model: onnx.ModelProto, *, optimise: bool = True) -> Run:
    """A function that runs the graph on the CPU; see `open_session`."""
    session = open_session(model, optimise=optimise)
    return lambda inputs: run(session, inputs)


def node_outputs(graph: onnx.GraphProto) -> list[str]:
    """The names of all values that nodes of the graph write, in order."""
    return [name for node in graph.node for name in node.output if name]


def observe(
    model: onnx.ModelProto, inputs: Arrays, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """The intermediate values of one call, by name, computed with the optimiser off.

    Args:
        model: left as it was.
        inputs: one call.
        names: which values; all that top-level nodes write when None.

    Raises:
        BadInput: onnxruntime refuses the graph or the inputs.
    """
    wanted = list(dict.fromkeys(node_outputs(model.graph) if names is None else names))
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    # No type is given: onnxruntime infers it, and the file's own declarations may be wrong.
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = open_session(exposed, optimise=False)
    with refused(AT_INPUTS):
        values = session.run(wanted, dict(inputs))
    return {name: value for name, value in zip(wanted, values, strict=True) if isinstance(value, np.ndarray)}
