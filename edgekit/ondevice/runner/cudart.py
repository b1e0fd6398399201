"""The few calls of the CUDA runtime that a TensorRT engine needs, by ctypes: nothing to install.

Not yet run on hardware.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

MAJOR, MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor, -Minor
NAMES = (
    "libcudart.so.12",
    "libcudart.so.13",
    "libcudart.so.11.0",
    "libcudart.so",
    "/usr/local/cuda/lib64/libcudart.so",
)


class Cuda:
    """The CUDA runtime and its first GPU.

    Raises:
        RuntimeError: there is no CUDA runtime, or no GPU; says which in one line.
    """

    def __init__(self) -> None:
        self._library = _load()
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int(0)
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        if count.value < 1:
            raise RuntimeError("there is no GPU")

    def compute_capability(self) -> str:
        """Of the GPU: "8.7"."""
        return "%d.%d" % (self._attribute(MAJOR), self._attribute(MINOR))

    def allocate(self, size: int) -> int:
        """The address of `size` bytes on the GPU, which live as long as the process."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return int(address.value or 0)

    def stream(self) -> int:
        """A new queue of work."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return int(handle.value or 0)

    def copy(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        """Queue a copy of cudaMemcpyKind `kind`; both addresses must live until `wait`."""
        addresses = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call("cudaMemcpyAsync", *addresses, ctypes.c_size_t(size), kind, ctypes.c_void_p(stream))

    def wait(self, stream: int) -> None:
        """Until everything in the queue is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), number, 0)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            text = self._library.cudaGetErrorString(code).decode("utf-8", "replace")
            raise RuntimeError("CUDA: %s (%s)" % (text, name))


def _load() -> Any:
    found = ctypes.util.find_library("cudart")
    for name in ([found] if found else []) + list(NAMES):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError("the CUDA runtime (libcudart) is missing")
