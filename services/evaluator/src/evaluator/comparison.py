"""Whether one system is better than another on the same rows: the interval of the difference, and an exact test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluator.intervals import bootstrap_difference
from schemas import Interval

ALPHA = 0.025
"""One-sided level of the test, that of a 95 % interval."""

EXACT_ROWS = 16
"""Most rows of which all flips are counted; of more, `FLIPS` are drawn."""

FLIPS = 20_000


@dataclass(frozen=True)
class Comparison:
    """One system minus another on the same rows.

    Attributes:
        interval: of the mean difference, 95 %.
        p_value: how often chance alone does as well, were neither better.
    """

    interval: Interval
    p_value: float

    @property
    def clear(self) -> bool:
        """Whether the first system is better beyond doubt.

        The interval alone is too narrow at few rows: four gains without a loss lie above 0 at any number of rows.
        """
        return self.interval.low > 0 and self.p_value <= ALPHA


def compare(one: Sequence[float], other: Sequence[float], seed: int) -> Comparison:
    """Compare two systems by their scores on the same rows in the same order."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    return Comparison(bootstrap_difference(one, other, seed), sign_flip_p_value(differences, seed))


def sign_flip_p_value(differences: Sequence[float], seed: int) -> float:
    """One-sided p-value of paired differences, by Fisher's randomisation test (The Design of Experiments, 1935, §21).

    Were the two systems alike, each difference could as well have had the other sign: it is the share of all ways to
    choose the signs whose sum is at least the one found. Where answers are right or wrong it is McNemar's exact test.

    Args:
        differences: by row; those of 0 say nothing.
        seed: of the draws, where there are too many rows for all ways.
    """
    moved = np.asarray([difference for difference in differences if difference != 0.0])
    count = len(moved)
    if count == 0:
        return 1.0
    sizes = np.abs(moved)
    if np.ptp(sizes) == 0:
        gains = int((moved > 0).sum())
        return float(sum(math.comb(count, more) for more in range(gains, count + 1)) / 2**count)
    if count <= EXACT_ROWS:
        ways = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float(_reach(ways, sizes, moved.sum()).mean())
    ways = np.random.default_rng(seed).integers(0, 2, size=(FLIPS, count))
    return float((1 + _reach(ways, sizes, moved.sum()).sum()) / (1 + FLIPS))


def _reach(ways: np.ndarray, sizes: np.ndarray, found: float) -> np.ndarray:
    """Which ways to choose the signs (1 for +, 0 for -; one way a row) reach the sum found, but for rounding."""
    reach: np.ndarray = (2 * ways - 1) @ sizes >= found - 1e-9
    return reach
