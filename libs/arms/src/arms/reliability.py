"""Whether an arm is right as often as it is sure, by the rows it was not fitted to."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from arms.answering import Numbers
from schemas.artifacts import Coverage, Reliability, ReliabilityBin

Z = 1.96
"""Of a 95 % interval, in standard errors."""

MOST_BINS = 10
FEWEST_ROWS = 20
"""Of a bin, or that are answered: the interval of fewer says nothing."""

CONFIDENCES = (0.5, 0.7, 0.9, 0.99)
"""At which is told what would become of the rows if an arm answered only where it is so sure."""


def reliability_of(confidences: Numbers, right: NDArray[np.bool_]) -> Reliability | None:
    """How often an arm is right where it is so sure; None where the rows make no two bins.

    Bins hold as many rows each, and not a tenth of the scale: most answers are given surely.

    Args:
        confidences: (rows,), of the answer that each row would be given.
        right: (rows,), whether it is the row's own.
    """
    count = min(MOST_BINS, len(confidences) // FEWEST_ROWS)
    if count < 2:
        return None
    parts = np.array_split(np.argsort(confidences, kind="stable"), count)
    bins = [
        ReliabilityBin(rows=len(part), confidence=min(1.0, float(confidences[part].mean())), **shares(right[part]))
        for part in parts
    ]
    coverage = []
    for least in CONFIDENCES:
        sure = confidences >= least
        if sure.sum() >= FEWEST_ROWS:
            others = None if sure.all() else float(right[~sure].mean())
            coverage.append(Coverage(confidence=least, rows=int(sure.sum()), others=others, **shares(right[sure])))
    return Reliability(bins=bins, coverage=coverage)


def shares(right: NDArray[np.bool_]) -> dict[str, float]:
    """The share of right answers, with its interval."""
    low, high = wilson(int(right.sum()), len(right))
    return {"accuracy": float(right.mean()), "low": low, "high": high}


def wilson(right: int, asked: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (https://doi.org/10.1080/01621459.1927.10502953)."""
    share, spread = right / asked, Z * Z / asked
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / asked + spread / (4 * asked)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
