"""TensorRT engines: where one is kept, what it was made for, and when it must be made again.

An engine runs on the GPU, with the TensorRT, that made it, and on no other. So a bundle carries an ONNX file
and the engine is made on the device at the first start. What it was made for is written beside it.

TensorRT itself is not yet run on hardware by edgekit; what is decided here is tested as it stands.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from typing import Any, Dict, List, Mapping, Optional, Tuple

ENGINE, RECORD, TIMING = "model.engine", "engine.json", "timing.cache"
LEAST_VERSION = (8, 5)  # its calls by tensor name are the only ones that all later versions have
JETPACKS = {"32": "4", "35": "5", "36": "6"}  # by the major version of L4T, the system below it
WORKSPACE_MB = 256  # where the profile names no limit
MB = 1000 * 1000


def describe(
    model: str, options: Mapping[str, Any], tensorrt: str, sm: str, l4t: Optional[str]
) -> Dict[str, Any]:
    """What an engine depends on: a change of any of these makes the one that is kept useless.

    Args:
        model: path of the ONNX file.
        options: of the artifact: "precision" ("fp32", "fp16", "int8") and "workspace_mb".
        tensorrt: its version.
        sm: compute capability of the GPU: "8.7".
        l4t: version of the Jetson's system; None on another machine.
    """
    return {
        "model_sha256": sha256(model),
        "precision": options.get("precision", "fp32"),
        "workspace_mb": options.get("workspace_mb", WORKSPACE_MB),
        "tensorrt": tensorrt,
        "sm": sm,
        "l4t": l4t,
        "jetpack": JETPACKS.get((l4t or "").split(".")[0]),
    }


def why_build(folder: str, wanted: Mapping[str, Any]) -> str:
    """In words, why the engine in the folder cannot be used; empty where it can."""
    try:
        with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
            record = json.load(file)
        made_for, digest = record["made_for"], record["engine_sha256"]
    except FileNotFoundError:
        return "no engine is there yet"
    except (OSError, ValueError, KeyError, TypeError):
        return "the record of the engine cannot be read"
    for name in sorted(wanted):
        before = made_for.get(name) if isinstance(made_for, dict) else None
        if before != wanted[name]:
            return "%s is %s, the engine was made for %s" % (name, wanted[name], before)
    path = os.path.join(folder, ENGINE)
    if not os.path.isfile(path) or sha256(path) != digest:
        return "the engine is damaged"
    return ""


def keep(folder: str, engine: bytes, wanted: Mapping[str, Any]) -> None:
    """Write the engine and then its record, each whole or not at all; a loss of power leaves a rebuild.

    Raises:
        OSError: the folder cannot be written.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    write_whole(os.path.join(folder, ENGINE), engine)
    record = {"made_for": dict(wanted), "engine_sha256": hashlib.sha256(engine).hexdigest()}
    write_whole(os.path.join(folder, RECORD), json.dumps(record, indent=2, sort_keys=True).encode())


def folder_for(model: str, environment: Mapping[str, str]) -> str:
    """Where the engine of a model is kept: beside it; in the user's cache where the bundle is read-only.

    Args:
        model: path of the ONNX file.
        environment: EDGEKIT_CACHE or XDG_CACHE_HOME name the cache; else it is ~/.cache.
    """
    bundle = os.path.dirname(os.path.abspath(model))
    if os.access(bundle, os.W_OK):
        return os.path.join(bundle, "engine")
    home = environment.get("HOME") or os.path.expanduser("~")
    cache = environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    root = environment.get("EDGEKIT_CACHE") or os.path.join(cache, "edgekit")
    return os.path.join(root, "engines", hashlib.sha256(bundle.encode()).hexdigest()[:16])


def too_old(version: str) -> str:
    """In words, why a TensorRT of this version cannot be used; empty where it can."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers >= LEAST_VERSION:
        return ""
    return "TensorRT %s is older than %d.%d" % (version, *LEAST_VERSION)


def flags(precision: str, *, fast_fp16: bool, fast_int8: bool) -> Tuple[List[str], List[str]]:
    """The builder's flags to set and to clear.

    Args:
        precision: "fp32", "fp16" or "int8".
        fast_fp16: whether the GPU has arithmetic for it.
        fast_int8: the same.

    Raises:
        ValueError: the GPU has none for this precision; says so in one line.
    """
    if precision == "fp32":
        return [], ["TF32"]  # ten bits of mantissa are not float32
    if precision == "fp16":
        if not fast_fp16:
            raise ValueError("this GPU has no float16 arithmetic")
        return ["FP16"], []
    if precision == "int8":
        if not fast_int8:
            raise ValueError("this GPU has no int8 arithmetic")
        return ["INT8"] + ["FP16"] * fast_fp16, []  # what is not quantized runs in float16
    raise ValueError("unknown precision %r" % precision)


def workspace_bytes(limit_mb: float, available_mb: Optional[float]) -> int:
    """Memory that the builder may use: the limit, and at most half of what is free, which the GPU shares.

    Args:
        limit_mb: of the artifact's options.
        available_mb: what the system says is available; None where it does not say.
    """
    limit = limit_mb if available_mb is None else min(limit_mb, available_mb / 2)
    return int(limit * MB)


def l4t_version(release: Optional[str]) -> Optional[str]:
    """The version in /etc/nv_tegra_release, "36.4.0"; None where there is none."""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release or "")
    return None if found is None else "%s.%s" % (found.group(1), found.group(2))


def available_mb(meminfo: Optional[str]) -> Optional[float]:
    """MemAvailable of /proc/meminfo, 10^6 bytes."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo or "", re.MULTILINE)
    return None if found is None else int(found.group(1)) * 1024 / MB


def read(path: str) -> Optional[str]:
    """The text of a system file; None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def sha256(path: str) -> str:
    """The SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def write_whole(path: str, content: bytes) -> None:
    """Write a file that appears whole or not at all, also when the power fails."""
    folder = os.path.dirname(path)
    descriptor, half = tempfile.mkstemp(prefix=".half-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, path)
    except BaseException:
        os.unlink(half)
        raise
