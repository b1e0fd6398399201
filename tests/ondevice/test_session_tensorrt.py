"""What the device half of TensorRT does around TensorRT, and what runs where there is none."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import image_network

from edgekit.ondevice.runner import cudart, session_onnxruntime, session_tensorrt

IMAGE = np.ones((1, 3, 16, 16), np.float32)


@pytest.fixture
def model(tmp_path):
    network = image_network()
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


def test_a_machine_without_the_cuda_runtime_says_so(monkeypatch):
    monkeypatch.setattr(cudart, "NAMES", ("libnone.so",))
    monkeypatch.setattr(cudart.ctypes.util, "find_library", lambda _: None)
    with pytest.raises(RuntimeError, match=r"the CUDA runtime \(libcudart\) is missing"):
        cudart.Cuda()


# A CUDA runtime whose GPU is the host's own memory; ctypes passes to it what it passes to NVIDIA's.
LIBRARY = """
#include <stdlib.h>
#include <string.h>
int cudaGetDeviceCount(int *n) { *n = COUNT; return CODE; }
const char *cudaGetErrorString(int code) { return code == 35 ? "no driver" : "?"; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute - 68; return device; }
int cudaMalloc(void **address, size_t size) { *address = malloc(size); return 0; }
int cudaStreamCreate(void **stream) { *stream = (void *)0x123456789ab; return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  if ((kind != 1 && kind != 2) || stream != (void *)0x123456789ab) return 1;
  memcpy(to, from, size);
  return 0;
}
int cudaStreamSynchronize(void *stream) { return stream != (void *)0x123456789ab; }
"""


@pytest.fixture
def cuda_library(tmp_path, monkeypatch):
    """Compile the library with this many GPUs and this error code, and let it be found."""

    def compiled(*, count, code=0):
        source, path = tmp_path / "cudart.c", tmp_path / "libcudart.so"
        source.write_text(LIBRARY)
        command = ["gcc", "-shared", "-fPIC", f"-DCOUNT={count}", f"-DCODE={code}", "-o", path, source]
        subprocess.run(command, check=True, timeout=60)
        monkeypatch.setattr(cudart.ctypes.util, "find_library", lambda _: str(path))

    return compiled


@pytest.mark.parametrize(
    ("count", "code", "said"),
    [(0, 0, "there is no GPU"), (1, 35, r"CUDA: no driver \(cudaGetDeviceCount\)")],
)
def test_a_machine_without_a_gpu_says_so(cuda_library, count, code, said):
    cuda_library(count=count, code=code)
    with pytest.raises(RuntimeError, match=said):
        cudart.Cuda()


def test_arrays_go_to_the_gpu_and_come_back(cuda_library):
    cuda_library(count=1)
    cuda = cudart.Cuda()
    assert cuda.compute_capability() == "7.8"
    sent, back = np.arange(1000.0), np.zeros(1000)
    address, stream = cuda.allocate(sent.nbytes), cuda.stream()
    cuda.copy(address, sent.ctypes.data, sent.nbytes, session_tensorrt.TO_DEVICE, stream)
    cuda.copy(back.ctypes.data, address, back.nbytes, session_tensorrt.TO_HOST, stream)
    cuda.wait(stream)
    assert np.array_equal(sent, back)
    with pytest.raises(RuntimeError, match="cudaStreamSynchronize"):
        cuda.wait(1)


def open_model(model, **options):
    session_tensorrt._said.clear()
    return session_tensorrt.open_session(
        model, threads=1, inputs=["image"], outputs=["logits"], options=options
    )


def test_onnx_runtime_takes_over_where_there_is_no_tensorrt_and_says_why(model, capfd):
    run = open_model(model, precision="int8")
    plain = session_onnxruntime.open_session(
        model, threads=1, inputs=["image"], outputs=["logits"], options={}
    )
    assert np.array_equal(run({"image": IMAGE})[0], plain({"image": IMAGE})[0])
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("TensorRT is not used: No module named 'tensorrt'; ONNX Runtime 1.")
    assert run.fallback == "No module named 'tensorrt'"
    open_model(model, reference=True)
    assert not capfd.readouterr().err, "the reference never is TensorRT's"
    assert session_tensorrt.version().endswith(" in place of TensorRT")


# TensorRT and a GPU are not here. This stands in for them, to see which of our own steps are taken when;
# the names of TensorRT's calls were compared with those in the bindings of TensorRT 10.3.
STAND_IN = """
    import os
    __version__ = os.environ.get("STAND_IN_VERSION", "10.3.0")
    class Anything:
        def __init__(self, *_): pass
        def __getattr__(self, name): return Anything()
        def __call__(self, *_): return Anything()
        def __int__(self): return 0
        def __bytes__(self): return b"timings"
    NetworkDefinitionCreationFlag = MemoryPoolType = BuilderFlag = Anything()
    class ILogger:
        Severity = Anything()
        def __init__(self): pass
    class Parser(Anything):
        def parse_from_file(self, path): return "broken" not in os.environ
        def get_error(self, index): return self
        def desc(self): return "no importer for Mine"
    OnnxParser = Parser
    class Builder(Anything):
        platform_has_fast_fp16 = platform_has_fast_int8 = True
        def build_serialized_network(self, *_):
            print("built")
            return b"an engine"
    class Runtime(Anything):
        def deserialize_cuda_engine(self, data):
            print("loaded", data.decode())
            return None
"""
PROGRAM = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import cudart, session_tensorrt
class Gpu:
    def compute_capability(self): return "8.7"
beside = session_tensorrt._beside
def with_gpu(name):
    module = beside(name)
    if name == "cudart": module.Cuda = Gpu
    return module
session_tensorrt._beside = with_gpu
options = {"precision": "int8"}
names = {"inputs": ["image"], "outputs": ["logits"]}
run = session_tensorrt.open_session(sys.argv[3], threads=1, options=options, **names)
print(run.fallback)
"""


@pytest.fixture
def start(model, tmp_path):
    """Open the model in a new process, with what stands in for TensorRT; what it printed."""
    (tmp_path / "tensorrt.py").write_text(textwrap.dedent(STAND_IN))
    runner = Path(session_tensorrt.__file__).parent

    def run(**environment):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path, runner, model],
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), done.stderr.splitlines()

    return run


def test_the_first_start_makes_the_engine_the_second_loads_it_and_an_update_makes_it_again(start):
    out, err = start()
    assert out[:2] == ["built", "loaded an engine"]
    assert err[0] == "making the TensorRT engine, which can take minutes: no engine is there yet"
    out, err = start()
    assert out[:1] == ["loaded an engine"]
    assert len(err) == 1, "nothing is made"
    out, err = start(STAND_IN_VERSION="10.7.0")
    assert out[0] == "built"
    assert err[0].endswith("tensorrt is 10.7.0, the engine was made for 10.3.0")


def test_what_tensorrt_refuses_runs_on_onnx_runtime_with_its_reason(start, tmp_path):
    out, err = start(broken="1")
    assert out == ["TensorRT cannot read the model: no importer for Mine"]
    assert err[-1].startswith(f"TensorRT is not used: {out[0]}; ONNX Runtime")
    assert not (tmp_path / "engine").exists(), "nothing is kept"


def test_the_files_run_outside_of_the_package(model, tmp_path):
    runner = Path(session_tensorrt.__file__).parent
    for name in ("session_tensorrt", "session_onnxruntime", "engine", "cudart"):
        shutil.copy(runner / f"{name}.py", tmp_path)
    program = "import session_tensorrt as s; print(s.version())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "onnxruntime" in done.stdout
