"""How long `edgekit --help` takes beside `python -c "import click"`: in turn, median of pairs.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import click": [sys.executable, "-c", "import click"],
    "edgekit --help": [sys.executable, "-m", "edgekit", "--help"],
}
ROUNDS = 30


def seconds(command: list[str]) -> float:
    """Wall time of one run of a command."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print both medians and the median of the ratios."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    for name, times in taken.items():
        print(f"{name:16} {statistics.median(times) * 1000:6.0f} ms (median of {ROUNDS})")
    ratios = [b / a for a, b in zip(*taken.values(), strict=True)]
    print(f"ratio            {statistics.median(ratios):6.2f} (median of pairs)")


if __name__ == "__main__":
    main()
