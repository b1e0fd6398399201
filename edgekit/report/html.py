"""Reports as files: one self-contained HTML page each, which needs neither scripts nor the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.files import written_whole
from edgekit.report.bench_page import bench_page
from edgekit.report.build_page import build_page
from edgekit.result import BuildResult


def write_build_report(result: BuildResult, path: Path) -> None:
    """Write the page of a build.

    Raises:
        OutsideFailure: the file cannot be written.
    """
    _write(path, build_page(result))


def write_bench_report(result: Mapping[str, Any], manifest: Mapping[str, Any], path: Path) -> None:
    """Write the page of a benchmark.

    Args:
        result: what `run.py --bench` printed, as parsed JSON (schema "edgekit.bench/1").
        manifest: the bundle's manifest, as parsed JSON.
        path: the file to write; what was there is replaced.

    Raises:
        OutsideFailure: the file cannot be written.
    """
    _write(path, bench_page(result, manifest))


def _write(path: Path, content: str) -> None:
    with written_whole(path) as half:
        half.write_text(content, encoding="utf-8")
