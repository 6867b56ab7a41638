"""Multinomial logistic regression with an L2 penalty, by L-BFGS (Nocedal and Wright, Numerical Optimization, 7.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arms.answering import Numbers, Places

MOST_STEPS = 60
REMEMBERED = 8
"""Steps that stand for the curvature."""

ENOUGH = 3e-4
"""Length of the gradient, to that at the begin, at which nothing is gained any more."""

OF_INTERCEPTS = 0.01
"""Share of the penalty that they bear: an answer that no row has keeps a finite one."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """Vectors around their mean, of length 1 on the average, with a 1 behind them: embeddings lie in a narrow cone.

    Attributes:
        mean: (dimensions,).
        length: of what is left, in the mean square.
    """

    mean: Numbers
    length: float

    @classmethod
    def of(cls, vectors: Numbers) -> Scaling:
        """That of some vectors, (rows, dimensions)."""
        mean = vectors.mean(axis=0)
        length = float(np.sqrt(((vectors - mean) ** 2).sum(axis=1).mean()))
        return cls(mean, max(length, 1e-6))

    def apply(self, vectors: Numbers) -> Numbers:
        """(rows, dimensions) -> (rows, dimensions + 1)."""
        scaled = (vectors - self.mean) / np.float32(self.length)
        return np.hstack([scaled, np.ones((len(vectors), 1), dtype=np.float32)])

    def undo(self, weights: Numbers) -> tuple[Numbers, Numbers]:
        """Coefficients and intercepts for vectors as they are."""
        coefficients = (weights[:, :-1] / np.float32(self.length)).astype(np.float32)
        return coefficients, (weights[:, -1] - coefficients @ self.mean).astype(np.float32)


def regress(rows: Numbers, places: Places, answers: int, strength: float, start: Numbers | None) -> Numbers:
    """Weights, (answers, columns), of least penalised cross-entropy.

    Args:
        rows: (rows, columns); the last column is 1.
        places: (rows,), the answer of each.
        answers: how many there are.
        strength: weight of the penalty, to that of one row.
        start: weights to begin with; zeros if None.
    """
    penalty = np.full(rows.shape[1], strength / len(rows), dtype=np.float32)
    penalty[-1] *= OF_INTERCEPTS
    weights = np.zeros((answers, rows.shape[1]), dtype=np.float32) if start is None else start
    loss, slope = _loss(weights, rows, places, penalty)
    enough = ENOUGH * max(_norm(slope), ENOUGH)
    steps: list[tuple[Numbers, Numbers, float]] = []
    for _ in range(MOST_STEPS):
        if _norm(slope) <= enough:
            break
        direction = -_uphill(slope, steps)
        gain = _dot(slope, direction)
        size = 1.0 if steps else 1.0 / max(1.0, _norm(slope))
        for _halving in range(20):
            moved = weights + np.float32(size) * direction
            new_loss, new_slope = _loss(moved, rows, places, penalty)
            if new_loss <= loss + 1e-4 * size * gain:
                break
            size /= 2
        else:
            break  # as good as float32 tells
        step, bend = moved - weights, new_slope - slope
        if _dot(step, bend) > 1e-10:
            steps = [*steps[1 - REMEMBERED :], (step, bend, 1.0 / _dot(step, bend))]
        weights, loss, slope = moved, new_loss, new_slope
    return weights


def _loss(weights: Numbers, rows: Numbers, places: Places, penalty: Numbers) -> tuple[float, Numbers]:
    """Penalised mean cross-entropy, and its gradient by the weights."""
    scores = rows @ weights.T
    scores -= scores.max(axis=1, keepdims=True)
    every = np.arange(len(rows))
    of_answers = scores[every, places]
    likely = np.exp(scores, out=scores)
    sums = likely.sum(axis=1, keepdims=True)
    loss = float((np.log(sums[:, 0]) - of_answers).mean(dtype=np.float64))
    likely /= sums
    likely[every, places] -= 1
    slope = (likely.T @ rows) / np.float32(len(rows)) + weights * penalty
    return loss + 0.5 * float((weights * weights * penalty).sum(dtype=np.float64)), slope


def _uphill(slope: Numbers, steps: list[tuple[Numbers, Numbers, float]]) -> Numbers:
    """The gradient, bent by the curvature that the remembered steps met (the two-loop recursion)."""
    bent = slope.copy()
    shares = []
    for step, bend, inverse in reversed(steps):
        share = inverse * _dot(step, bent)
        bent -= np.float32(share) * bend
        shares.append(share)
    if steps:
        step, bend, _ = steps[-1]
        bent *= np.float32(_dot(step, bend) / _dot(bend, bend))
    for (step, bend, inverse), share in zip(steps, reversed(shares), strict=True):
        bent += np.float32(share - inverse * _dot(bend, bent)) * step
    return bent


def _dot(one: Numbers, other: Numbers) -> float:
    return float(np.vdot(one, other))


def _norm(one: Numbers) -> float:
    return float(np.sqrt(_dot(one, one)))
