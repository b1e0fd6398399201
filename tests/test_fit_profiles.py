import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.target import load_profile

ROOT = Path(__file__).parents[1]


def run(*arguments):
    command = [sys.executable, "benchmarks/fit_profiles.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["rpi4", "rpi-zero2w", "jetson-nano", "x86-cpu"])
def test_the_shipped_coefficients_are_those_of_the_fit(name):
    fitted = {key: float(value) for key, value in re.findall(r"^    (\w+): (\S+)$", run("--fit", name), re.M)}
    model = load_profile(name).cost_model
    for key in ("dense", "pointwise", "depthwise", "memory_gbs", "overhead_us", "serial_share"):
        assert getattr(model, key) == pytest.approx(fitted[key], rel=0.05), key


def test_the_table_has_a_row_for_each_profile_and_nine_in_ten_rows_inside_their_interval():
    rows = [line.split() for line in run().splitlines()[1:]]
    assert len(rows) == 9
    assert all(int(row[-1].rstrip("%")) >= 90 for row in rows)
