"""Names that nearly match. Imports nothing of edgekit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_AS_CLOSE = 0.03  # of the best match's likeness: those that come so near to it are named too


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Advice that names the known words closest to `name`: "did you mean `x`?"; None when none is close."""
    by_folded = {word.casefold(): word for word in known}
    folded = name.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=3, cutoff=0.6)
    if not close:
        return None
    least = _likeness(folded, close[0]) - _AS_CLOSE
    best = [by_folded[word] for word in close if _likeness(folded, word) >= least]
    return f"did you mean {' or '.join(f'`{word}`' for word in best)}?"


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()
