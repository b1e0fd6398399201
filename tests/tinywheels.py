"""Wheels made on the spot, of packages that exist nowhere else."""

import base64
import hashlib
import os
import zipfile
from pathlib import Path


def tiny_wheel(
    folder: Path, name: str, version: str, *, needs=(), asks="", size=0, tag="py3-none-any"
) -> Path:
    """A wheel with one module of the package's name.

    Args:
        folder: where it is put; made.
        name, version: of the package.
        needs: its requirements, `other>=1`.
        asks: the versions of Python it is for, `>=3.8`.
        size: bytes that nothing can compress.
        tag: what it fits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    about += [f"Requires-Dist: {need}\n" for need in needs]
    about += [f"Requires-Python: {asks}\n"] if asks else []
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n".encode(),
        f"{name}.bin": os.urandom(size),
        f"{info}/METADATA": "".join(about).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    rows = [f"{path},sha256={digest(content)},{len(content)}" for path, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
