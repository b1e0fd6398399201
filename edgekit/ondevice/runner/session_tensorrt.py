"""TensorRT: make the engine at the first start, run it; ONNX Runtime takes its place where that fails.

TensorRT itself is not yet run on hardware by edgekit. What runs on every machine without it is the fallback.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from typing import Any, Callable, List, Mapping, Sequence

PACKAGES = ("tensorrt", "onnxruntime")

Run = Callable[[Mapping[str, Any]], List[Any]]

# numpy's names for the types that inputs and outputs of an engine can have; TensorRT's own table fails
# with numpy 1.24 and newer up to TensorRT 8.6.
TYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8",
    "INT32": "int32", "INT64": "int64", "BOOL": "bool",
}  # fmt: skip
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
_said: List[str] = []


def version() -> str:
    """The version of TensorRT; where it is not installed, of the onnxruntime that runs in its place.

    Raises:
        ImportError: neither is installed.
    """
    try:
        import tensorrt
    except ImportError:
        return "onnxruntime %s in place of TensorRT" % _beside("session_onnxruntime").version()
    return str(tensorrt.__version__)


def open_session(
    model: str,
    *,
    threads: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    options: Mapping[str, Any],
) -> Run:
    """Open the model with TensorRT, or with ONNX Runtime and a line on standard error that says why.

    The first start makes the engine, which takes minutes; later ones load it, see engine.py.

    Args:
        model: path of the ONNX file.
        threads: of ONNX Runtime, where that takes its place.
        inputs: names of the inputs, in order.
        outputs: names and order of the outputs to return.
        options: "precision": "fp32", "fp16" or "int8"; "workspace_mb": of the builder, 10^6 bytes; "dtypes":
            of the outputs, by name; "reference": True takes ONNX Runtime with its optimiser off.

    Returns:
        A function from input name -> array to the list of output arrays. Where ONNX Runtime runs, its
        attribute `fallback` says why.

    Raises:
        ImportError: neither TensorRT nor ONNX Runtime is installed.
        Exception: ONNX Runtime's own, when it refuses the file too.
    """
    if not options.get("reference"):
        try:
            return _open_engine(model, outputs, options)
        except Exception as error:  # noqa: BLE001 - whatever stops TensorRT, the model is run all the same
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    else:
        reason = "the reference is asked for"
    half = _beside("session_onnxruntime")
    given = {"providers": ["CUDAExecutionProvider"], "reference": options.get("reference", False)}
    call = half.open_session(model, threads=threads, inputs=inputs, outputs=outputs, options=given)
    if not options.get("reference"):
        _say("TensorRT is not used: %s; ONNX Runtime %s runs the model" % (reason, half.version()))

    def run(feeds: Mapping[str, Any]) -> List[Any]:
        return list(call(feeds))

    run.fallback = reason  # type: ignore[attr-defined]
    return run


def _open_engine(model: str, outputs: Sequence[str], options: Mapping[str, Any]) -> Run:
    """The model as an engine, which is made where none fits.

    Raises:
        Exception: of many kinds; the first line says what is missing or what TensorRT refuses.
    """
    import tensorrt as trt

    engines = _beside("engine")
    too_old = engines.too_old(trt.__version__)
    if too_old:
        raise RuntimeError(too_old)
    cuda = _beside("cudart").Cuda()
    l4t = engines.l4t_version(engines.read("/etc/nv_tegra_release"))
    wanted = engines.describe(model, options, str(trt.__version__), cuda.compute_capability(), l4t)
    folder = engines.folder_for(model, os.environ)
    log = _log(trt)
    reason = engines.why_build(folder, wanted)
    if reason:
        _say("making the TensorRT engine, which can take minutes: %s" % reason)
        data = _build(trt, log, model, wanted, folder)
        try:
            engines.keep(folder, data, wanted)
        except OSError as error:
            _say("the engine cannot be kept: %s; the next start makes it again" % error)
    else:
        with open(os.path.join(folder, engines.ENGINE), "rb") as file:
            data = file.read()
    engine = trt.Runtime(log).deserialize_cuda_engine(data)
    if engine is None:
        raise RuntimeError(log.last or "TensorRT cannot load the engine")
    return _runner(trt, cuda, engine, outputs, options.get("dtypes", {}))


def _build(trt: Any, log: Any, model: str, wanted: Mapping[str, Any], folder: str) -> bytes:
    """The engine, made from the ONNX file; timings of kernels are kept for the next time.

    Raises:
        RuntimeError, ValueError: TensorRT or the GPU cannot.
    """
    engines = _beside("engine")
    builder = trt.Builder(log)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # gone where it is the rule
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(model):
        raise RuntimeError("TensorRT cannot read the model: %s" % parser.get_error(0).desc())
    config = builder.create_builder_config()
    free = engines.available_mb(engines.read("/proc/meminfo"))
    limit = engines.workspace_bytes(wanted["workspace_mb"], free)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    chosen, cleared = engines.flags(
        wanted["precision"],
        fast_fp16=builder.platform_has_fast_fp16,
        fast_int8=builder.platform_has_fast_int8,
    )
    for name in chosen:
        config.set_flag(getattr(trt.BuilderFlag, name))
    for name in cleared:
        config.clear_flag(getattr(trt.BuilderFlag, name))
    timing = os.path.join(folder, engines.TIMING)
    known = b""
    if os.path.isfile(timing):
        with open(timing, "rb") as file:
            known = file.read()
    # Timings of another GPU or version are refused by TensorRT itself, which then starts with none.
    if not config.set_timing_cache(config.create_timing_cache(known), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise RuntimeError("TensorRT cannot make the engine: %s" % (log.last or "no reason given"))
    with contextlib.suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        engines.write_whole(timing, bytes(config.get_timing_cache().serialize()))
    return bytes(data)


def _runner(trt: Any, cuda: Any, engine: Any, outputs: Sequence[str], dtypes: Mapping[str, str]) -> Run:
    """A function that runs the engine; its buffers on the GPU are allocated once."""
    import numpy

    context, stream = engine.create_execution_context(), cuda.stream()
    shapes, types_, addresses = {}, {}, {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shapes[name] = tuple(engine.get_tensor_shape(name))
        if min(shapes[name], default=0) < 0:
            raise RuntimeError("the shape of `%s` is not fixed" % name)
        types_[name] = numpy.dtype(TYPES[engine.get_tensor_dtype(name).name])
        size = int(numpy.prod(shapes[name], dtype=numpy.int64)) * types_[name].itemsize
        addresses[name] = cuda.allocate(size)
        context.set_tensor_address(name, addresses[name])
    given = [name for name in shapes if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]

    def run(feeds: Mapping[str, Any]) -> List[Any]:
        sent = {name: numpy.ascontiguousarray(feeds[name], dtype=types_[name]) for name in given}
        for name, array in sent.items():
            if numpy.shape(feeds[name]) != shapes[name]:
                raise ValueError("`%s` is %s, not %s" % (name, numpy.shape(feeds[name]), shapes[name]))
            cuda.copy(addresses[name], array.ctypes.data, array.nbytes, TO_DEVICE, stream)
        if not context.execute_async_v3(stream):
            raise RuntimeError("TensorRT cannot run the engine")
        found = {name: numpy.empty(shapes[name], types_[name]) for name in outputs}
        for name, array in found.items():
            cuda.copy(array.ctypes.data, addresses[name], array.nbytes, TO_HOST, stream)
        cuda.wait(stream)
        return [found[name].astype(dtypes.get(name, types_[name]), copy=False) for name in outputs]

    return run


def _log(trt: Any) -> Any:
    """A logger that keeps the last error and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Log()


def _say(line: str) -> None:
    """A line on standard error, once in a process."""
    if line not in _said:
        _said.append(line)
        print(line, file=sys.stderr, flush=True)


def _beside(name: str) -> types.ModuleType:
    """Another file of this folder as a module, from its source: in a bundle nothing is a package."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    module = types.ModuleType(name)
    module.__file__ = path
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)  # noqa: S102 - this bundle's own file
    return module
