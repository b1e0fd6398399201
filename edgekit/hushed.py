"""Keep back what other libraries print about themselves."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """No log records, no warnings and nothing on standard output.

    torch's exporters, nncf and onnxruntime's quantizers report missing packages, progress and failed attempts
    there; what matters of it comes back as an exception. Standard error, where edgekit's own progress is
    shown, stays as it is.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
