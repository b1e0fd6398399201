"""Every refusal edgekit makes, one exit status each. Imports nothing of edgekit.

EdgekitError          1  an error of edgekit's own
├─ BadInput           2  what the user gave cannot be used
├─ BudgetNotMet       3  a limit is exceeded, or nothing was measured against it
├─ OutsideFailure     4  something outside is missing or failed: a package, a device, the disk
└─ VerificationFailed 5  a converted model or a bundle disagrees with what it should be
"""

from __future__ import annotations


class EdgekitError(Exception):
    """One line for the user: where, what, and what to do about it."""

    exit_status = 1

    def __init__(self, what: str, *, where: str | None = None, todo: str | None = None) -> None:
        """Build the line.

        Args:
            what: what is wrong, with the values that show it.
            where: the file, key, option, layer or device at fault.
            todo: the next thing to type or to change.
        """
        self.what, self.where, self.todo = what, where, todo
        line = f"{where}: {what}" if where else what
        line = f"{line}; {todo}" if todo else line
        super().__init__(clean(line))


class BadInput(EdgekitError):
    """What the user gave cannot be used as it is."""

    exit_status = 2


class BudgetNotMet(EdgekitError):
    """A named limit is exceeded or unproven."""

    exit_status = 3


class OutsideFailure(EdgekitError):
    """Something outside edgekit is missing or failed; `todo` is the command that mends it."""

    exit_status = 4


class VerificationFailed(EdgekitError):
    """Outputs, digests or a schema are not what they must be."""

    exit_status = 5


def clean(value: object, limit: int | None = None) -> str:
    """`value` as one printable line: what would move a terminal's cursor or break XML becomes U+FFFD.

    Of a line longer than `limit` characters the beginning is kept.
    """
    text = " ".join(str(value).split())
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if limit is None or len(text) <= limit else text[: limit - 3] + "..."


def count(number: int, noun: str) -> str:
    """A number and its noun: `1 thread`, `4 threads`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line that says something of another library's exception, at most `limit` characters.

    Where the text is a traceback itself, as TorchScript's are, that is its last line.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    is_traceback = any("(most recent call last)" in line for line in lines)
    return clean(lines[-1 if is_traceback else 0] if lines else type(error).__name__, limit)
