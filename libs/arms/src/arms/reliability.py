"""Whether an arm is right as often as it is sure, by the rows it was not fitted to."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from arms.answering import Numbers, Places, softmax
from arms.fitting import temperature_of
from schemas.artifacts import CONFIDENCES, Coverage, Reliability, ReliabilityBin

Z = 1.96
"""Of a 95 % interval, in standard errors."""

MOST_BINS = 10
FEWEST_ROWS = 20
"""Of a bin, or of which a share is told: that of fewer says nothing."""


def confidences_of(scores: Numbers, right: NDArray[np.bool_], folds: Places, temperature: float) -> Numbers:
    """How sure each row's likeliest answer is, by the temperature of the other folds: no row tells of itself.

    Args:
        scores: (rows, answers), out of fold.
        right: (rows,), whether the highest is that of the row's answer.
        folds: (rows,).
        temperature: of all rows, where one fold has all of them.
    """
    confidences = np.empty(len(scores), dtype=np.float32)
    for fold in np.unique(folds):
        out = folds == fold
        known = temperature if out.all() else temperature_of(scores[~out], float(right[~out].mean()))
        confidences[out] = softmax(scores[out] / np.float32(known)).max(axis=1)
    return confidences


def reliability_of(confidences: Numbers, right: NDArray[np.bool_]) -> Reliability | None:
    """How often an arm is right where it is so sure; None where the rows make no two bins.

    Bins hold about as many rows each, and are no tenths of the scale: most answers are given surely. Rows of which it
    is just as sure are in one.

    Args:
        confidences: (rows,), of the answer that each row would be given.
        right: (rows,), whether it is the row's own.
    """
    count = min(MOST_BINS, len(confidences) // FEWEST_ROWS)
    if count < 2:
        return None
    order = np.argsort(confidences, kind="stable")
    ordered = confidences[order]
    starts = [len(order) * number // count for number in range(1, count)]
    cuts = np.unique(np.searchsorted(ordered, ordered[starts], side="left"))
    bins = [
        ReliabilityBin(rows=len(part), confidence=min(1.0, float(confidences[part].mean())), **shares(right[part]))
        for part in np.split(order, cuts)
        if len(part)
    ]
    coverage = []
    for least in CONFIDENCES:
        sure = confidences >= least
        if sure.sum() >= FEWEST_ROWS:
            others = float(right[~sure].mean()) if (~sure).sum() >= FEWEST_ROWS else None
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
