"""Keep back what other libraries print about themselves."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator


class _Nowhere(io.StringIO):
    """Takes what is printed; rich writes past it, so that edgekit's own progress goes on."""

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
    out, err = (
        contextlib.redirect_stdout(_Nowhere(sys.stdout)),
        contextlib.redirect_stderr(_Nowhere(sys.stderr)),
    )
    try:
        with warnings.catch_warnings(), out, err:
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
