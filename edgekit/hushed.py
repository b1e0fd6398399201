"""Keep back what other libraries print about themselves."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator


class _PastRich(io.StringIO):
    """Takes what is printed to standard error, but not what rich draws there: edgekit's own progress."""

    def __init__(self, stream: object) -> None:
        super().__init__()
        self.rich_proxied_file = getattr(stream, "rich_proxied_file", stream)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """No log records, no warnings and nothing printed from Python.

    torch's exporters, nncf and onnxruntime's quantizers report missing packages, progress and failed attempts
    there; what matters of it comes back as an exception.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    out = contextlib.redirect_stdout(io.StringIO())
    err = contextlib.redirect_stderr(_PastRich(sys.stderr))
    try:
        with warnings.catch_warnings(), out, err:
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
