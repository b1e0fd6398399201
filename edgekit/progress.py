"""Progress of long work: a live line on a terminal, one plain line a finished stage elsewhere.

Everything goes to standard error; standard output carries results only.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

Detail = Callable[[str], None]


class Progress:
    """Shows stages as they run.

    Args:
        quiet: show nothing but warnings (`--json`).
        verbose: let the libraries' own output through instead of keeping it back.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.warnings: list[str] = []
        self._console: Console | None = None
        self._status: Status | None = None

    @property
    def console(self) -> Console:
        """The console on standard error, made at first use (rich costs 0.1 s to import)."""
        if self._console is None:
            from rich.console import Console

            # A file descriptor of its own: `stage` redirects number 2 while libraries run.
            stream = os.fdopen(os.dup(2), "w", buffering=1) if _is_real(sys.stderr) else sys.stderr
            self._console = Console(file=stream, highlight=False, soft_wrap=True)
        return self._console

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Detail]:
        """Show `title` while the block runs, then how long it took.

        Yields a function which shows a detail (an epoch, a count) while the stage runs. What libraries
        print in the block is kept back unless `verbose`.
        """
        start = time.monotonic()
        outer = self._open(title)

        def detail(text: str) -> None:
            if self._status is not None:
                self._status.update(f"{title}: {text}")

        try:
            with _kept_back(not self.verbose and outer):
                yield detail
        except BaseException:
            self._close(outer)
            raise
        self._close(outer)
        if outer:
            self.say(f"[green]✓[/green] {title} [dim]{time.monotonic() - start:.1f} s[/dim]")

    def _open(self, title: str) -> bool:
        """Start the live line; False when a stage is already running, whose line then shows the title."""
        if self._status is not None:
            self._status.update(title)
            return False
        self._status = self.console.status(title)
        if self.console.is_terminal and not self.quiet:
            self._status.start()
        return True

    def _close(self, outer: bool) -> None:
        if outer and self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, markup: str) -> None:
        """One line, with rich markup."""
        if not self.quiet:
            self.console.print(markup)

    def warn(self, text: str) -> None:
        """One line that the user must not miss; kept in `warnings` for the report too."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.console.print(f"[yellow]warning:[/yellow] {_escaped(text)}")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _is_real(stream: IO[str]) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def _kept_back(active: bool) -> Iterator[None]:
    """Send what is written to descriptors 1 and 2 to a temporary file that is then dropped."""
    if not active:
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)
