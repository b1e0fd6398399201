"""A Python wheel of a bundle: `import NAME; NAME.predict(x)` (binary distribution format 1.0)."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgekit.files import written_whole
from edgekit.package.layer import Content
from edgekit.package.subject import Subject

INIT = '''"""{summary}."""

import importlib.util
import os
import sys

BUNDLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bundle")


def _runner():
    name = __name__ + ".run"
    spec = importlib.util.spec_from_file_location(name, os.path.join(BUNDLE, "run.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


run = _runner()
load, predict = run.load, run.predict
'''
MAIN = """import sys

from . import run

sys.exit(run.main())
"""


def wheel_name(subject: Subject) -> str:
    """The file's name, which installers read."""
    return f"{_module(subject)}-{subject.version}-py3-none-any.whl"


def write_wheel(subject: Subject, path: Path) -> str:
    """Write the wheel; returns the module's name. The same bundle gives the same bytes.

    It holds the bundle and requires the exact packages that the bundle names, which an installer fetches or
    finds; `python -m NAME --check` is the bundle's `run.py`.

    Args:
        subject: the bundle.
        path: the file; installers want the name that `wheel_name` gives.

    Raises:
        OutsideFailure: the file cannot be written.
    """
    module = _module(subject)
    info = f"{module}-{subject.version}.dist-info"
    files = {
        f"{module}/__init__.py": Content(INIT.format(summary=subject.summary).encode()),
        f"{module}/__main__.py": Content(MAIN.encode()),
        **subject.files(f"{module}/bundle"),
        f"{info}/METADATA": Content(_metadata(subject).encode()),
        f"{info}/WHEEL": Content(
            b"Wheel-Version: 1.0\nGenerator: edgekit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    contents = {name: content.read() for name, content in files.items()}
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD").encode()
    with written_whole(path) as half, zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return module


def _module(subject: Subject) -> str:
    return subject.name.replace("-", "_")


def _metadata(subject: Subject) -> str:
    manifest = subject.manifest
    oldest = min(manifest.device.python, key=lambda text: int(text.partition(".")[2]), default="3.8")
    requires = "".join(
        f"Requires-Dist: {name}=={version}\n" for name, version in sorted(manifest.requirements.items())
    )
    return (
        "Metadata-Version: 2.1\n"
        f"Name: {subject.name}\n"
        f"Version: {subject.version}\n"
        f"Summary: {subject.summary}\n"
        f"Requires-Python: >={oldest}\n"
        f"{requires}"
    )


def _record(contents: Mapping[str, bytes], own: str) -> str:
    def digest(content: bytes) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()

    lines = [f"{name},sha256={digest(content)},{len(content)}" for name, content in contents.items()]
    return "\n".join([*lines, f"{own},,", ""])
