"""A few seeds of the simulation with every test run, and that a seed is one course of events."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 300
"""Both processors are asked for, and other tests run beside."""

pytestmark = pytest.mark.timeout(2 * LONGEST_SECONDS)


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the simulation stands in for clocks and child processes of the whole interpreter."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


def test_no_invariant_breaks_in_the_first_seeds() -> None:
    done = simulate("--seeds", "80")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "80 seeds" in done.stdout
    assert "0 seeds with violations" in done.stdout
    places = re.search(r"at least one in (\d+) of (\d+) crowded seeds", done.stdout)
    assert places is not None, done.stdout
    gave, crowded = map(int, places.groups())
    assert crowded == 10
    assert gave > crowded / 2, "what judges given places has too few to judge"


def test_a_seed_takes_the_same_course_every_time() -> None:
    courses = {simulate("--seed", "7").stdout for _ in range(2)}
    assert len(courses) == 1
    assert "FAULT" in courses.pop()
