"""Progress of long work: a live line on a terminal, one plain line a finished stage elsewhere.

Everything goes to standard error; standard output carries results only.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import IO, TYPE_CHECKING

from edgekit.errors import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

Detail = Callable[[str], None]

LINES_OF_A_FAILURE = 30


class Progress:
    """Shows stages as they run.

    Args:
        quiet: show nothing but warnings (`--json`).
        verbose: let the libraries' own output through, to standard error, instead of keeping it back.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.warnings: list[str] = []
        self._console: Console | None = None
        self._live: Live | None = None
        self._spinner: Spinner | None = None
        self._asking = threading.Lock()

    @property
    def console(self) -> Console:
        """The console on standard error, made at first use (rich costs 0.1 s to import)."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=_own_stream(), highlight=False, soft_wrap=True)
        return self._console

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Detail]:
        """Show `title` while the block runs, then how long it took; a block holds no other stage.

        Yields a function which shows a detail (an epoch, a count) while the stage runs. What libraries
        print in the block is kept back unless `verbose`; when the block fails, its last lines go with the
        exception as a note, which a traceback shows.
        """
        start = time.monotonic()
        self._open(title)
        try:
            with self.hush():
                yield lambda text: self._show(f"{title}: {text}")
        finally:
            self._close()
        self.say(f"[green]✓[/green] {_escaped(title)} [dim]{time.monotonic() - start:.1f} s[/dim]")

    def hush(self) -> contextlib.AbstractContextManager[None]:
        """Keep back what libraries print in the block, which is too short to be a stage."""
        return _on_standard_error() if self.verbose else _kept_back()

    def _open(self, title: str) -> None:
        console = self.console  # made before `_kept_back` takes standard error away
        if self.verbose:
            self.say(f"{_escaped(title)} ...")
        elif console.is_terminal and not self.quiet:
            self._start_live_line(console)
        self._show(title)

    def _start_live_line(self, console: Console) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._spinner = Spinner("dots")
        # rich would show what Python code prints in the block; `_kept_back` has the say.
        self._live = Live(
            self._spinner, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = self._spinner = None

    def _show(self, text: str) -> None:
        if self._spinner is not None:
            from rich.text import Text

            self._spinner.update(text=Text(clean(text), overflow="ellipsis", no_wrap=True))

    def ask(self, prompt: str) -> str:
        """Ask the user for a secret on the terminal, unseen; the live line rests meanwhile."""
        import getpass

        with self._asking:
            if self._live is not None:
                self._live.stop()
            try:
                return getpass.getpass(f"{clean(prompt)}: ")
            finally:
                if self._live is not None:
                    self._live.start()

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

    return escape(clean(text))


def _own_stream() -> IO[str]:
    """Standard error on a descriptor of its own: `_kept_back` takes number 2 away while libraries run."""
    if sys.stderr is None:  # closed by whoever started this process
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - as long as the program
    if not _is_on(sys.stderr, 2):
        return sys.stderr
    encoding = sys.stderr.encoding
    return os.fdopen(os.dup(2), "w", buffering=1, encoding=encoding, errors="backslashreplace")


def _is_on(stream: IO[str] | None, descriptor: int) -> bool:
    try:
        return stream is not None and stream.fileno() == descriptor
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def _kept_back() -> Iterator[None]:
    """Send what is written to descriptors 1 and 2 to a temporary file; its end goes with an exception."""
    with tempfile.TemporaryFile() as sink:
        try:
            with _sent_to(sink.fileno(), (1, 2)):
                yield
        except Exception as error:
            _attach(error, sink)
            raise


def _on_standard_error() -> contextlib.AbstractContextManager[None]:
    """Send what is written to descriptor 1 to 2: standard output carries results only."""
    return _sent_to(2, (1,) if _is_on(sys.stderr, 2) else ())


@contextlib.contextmanager
def _sent_to(sink: int, numbers: Collection[int]) -> Iterator[None]:
    """Let the descriptors of these numbers, where Python's streams are on them, write to `sink`."""
    with contextlib.ExitStack() as restore:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            if number in numbers and _is_on(stream, number):
                stream.flush()
                restore.callback(_give_back, stream, number, os.dup(number))
                os.dup2(sink, number)
        yield


def _give_back(stream: IO[str], number: int, copy: int) -> None:
    with contextlib.suppress(OSError):  # the temporary file may be on a full disk
        stream.flush()
    os.dup2(copy, number)
    os.close(copy)


def _attach(error: Exception, sink: IO[bytes]) -> None:
    sink.seek(max(0, sink.seek(0, os.SEEK_END) - 20_000))
    lines = sink.read().decode("utf-8", "replace").splitlines()[-LINES_OF_A_FAILURE:]
    shown = [line for line in map(clean, lines) if line]
    if shown:
        error.add_note("\n".join(["the last lines that libraries wrote meanwhile:", *shown]))
