"""Figures of a serving process in Prometheus' text format 0.0.4."""

from __future__ import annotations

import bisect
import threading
import time
from typing import Any, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper ends in seconds, three to a power of ten: from a keyword spotter to a large network on a small core.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters that threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.time()
        self._requests: dict[Any, int] = {}
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds, self._errors = 0.0, 0

    def answered(self, path: str, status: int) -> None:
        """Count a request; `path` is one of a few known names."""
        with self._lock:
            self._requests[path, status] = self._requests.get((path, status), 0) + 1

    def predicted(self, seconds: float) -> None:
        """Count a call of the runtime."""
        with self._lock:
            self._buckets[bisect.bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def predict_failed(self) -> None:
        """Count a call that the runtime refused."""
        with self._lock:
            self._errors += 1

    def as_text(self, labels: Mapping[str, str], *, ready: bool, in_flight: int, rss_mb: float | None) -> str:
        """All figures; `labels` say which model this is."""
        with self._lock:
            requests, buckets = dict(self._requests), list(self._buckets)
            seconds, errors = self._seconds, self._errors
        series = {
            f"edgekit_requests_total{_labels({'path': path, 'status': str(status)})}": count
            for (path, status), count in sorted(requests.items())
        }
        lines = _metric("edgekit_info", "gauge", "The model.", {f"edgekit_info{_labels(labels)}": 1})
        lines += _single("edgekit_ready", "gauge", "Whether the model can be asked.", int(ready))
        lines += _metric("edgekit_requests_total", "counter", "Answered requests.", series)
        lines += _histogram(buckets, seconds)
        lines += _single("edgekit_predict_errors_total", "counter", "Calls that the runtime refused.", errors)
        lines += _single("edgekit_requests_in_flight", "gauge", "Requests being answered.", in_flight)
        uptime = time.time() - self._started
        lines += _single("edgekit_uptime_seconds", "gauge", "Since the process began to serve.", uptime)
        if rss_mb is not None:
            name, told = "process_resident_memory_bytes", "Resident memory."
            lines += _single(name, "gauge", told, round(rss_mb * 1e6))
        return "\n".join(lines) + "\n"


def _histogram(buckets: list[int], seconds: float) -> list[str]:
    name, so_far, series = "edgekit_predict_seconds", 0, {}
    for i, count in enumerate(buckets):
        so_far += count
        end = f"{BUCKETS[i]:g}" if i < len(BUCKETS) else "+Inf"
        series[f"{name}_bucket{_labels({'le': end})}"] = so_far
    series.update({f"{name}_sum": seconds, f"{name}_count": so_far})  # type: ignore[dict-item]
    return _metric(name, "histogram", "Time of one call of the runtime.", series)


def _single(name: str, kind: str, told: str, value: float) -> list[str]:
    return _metric(name, kind, told, {name: value})


def _metric(name: str, kind: str, told: str, series: Mapping[str, float]) -> list[str]:
    lines = [
        f"{key} {value:.9g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in series.items()
    ]
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}", *lines]


def _labels(pairs: Mapping[str, str]) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{%s}" % ",".join(f'{name}="{quoted(value)}"' for name, value in pairs.items())
