"""How something comes down over rounds or steps of training."""

from __future__ import annotations

from typing import Literal

Schedule = Literal["one-shot", "linear", "polynomial", "exponential"]


def shares(schedule: Schedule, last: float, rounds: int) -> list[float]:
    """The share that is kept after each round, in falling order; the last is `last`.

    - `linear`: as much goes in each round.
    - `polynomial`: much at first, little at the end: the cubic of Zhu & Gupta 2017.
    - `exponential`: each round keeps the same part of what there was before it.
    """
    if schedule == "one-shot":
        return [last]
    done = [(number + 1) / rounds for number in range(rounds - 1)]
    if schedule == "linear":
        found = [1 - (1 - last) * part for part in done]
    elif schedule == "polynomial":
        found = [1 - cubic(1 - last, part) for part in done]
    else:
        found = [last**part for part in done]
    return [*found, last]


def cubic(target: float, done: float) -> float:
    """What is gone, of `target` in the end, when this part (0 to 1) of the way is done (Zhu & Gupta 2017)."""
    return target * (1 - (1 - min(1.0, max(0.0, done))) ** 3)
