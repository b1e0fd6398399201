"""Names that nearly match. Imports nothing of edgekit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Advice that names the known words closest to `name`: "did you mean `x`?"; None when none is close."""
    by_folded = {word.casefold(): word for word in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    if not close:
        return None
    return f"did you mean {' or '.join(f'`{by_folded[word]}`' for word in close)}?"
