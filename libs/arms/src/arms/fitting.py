"""Fits a way to answer on embeddings of rows, and measures it on rows that it was not fitted on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arms.answering import Arm, Head, Nearest, Numbers, Places, closest_of_each, softmax
from arms.regression import Scaling, regress
from schemas.artifacts import ArmKind

Groups = NDArray[np.int64]

MOST_ROWS = 5_000
"""That an arm is fitted on: of more, `sample` chooses."""

MOST_CLASSES = 256
"""Answers of a head; of more, only the closest row answers."""

FOLDS = 5
FOLDS_OF_MANY = 3
MANY = 1_500
"""Rows from which fewer folds tell as well."""

STRENGTHS = (3.0, 0.3, 0.03)
"""Weights of the penalty, as in `C = 1 / strength` of others, from which the one that errs least is chosen."""

COLDEST, HOTTEST = 1e-4, 1e3
"""Bounds of a temperature."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted arm.

    Attributes:
        arm: it.
        accuracy: share of the rows to which it gave their answer while it was fitted on others.
        folds: (rows,), of those that were left out together.
        scores: (rows, answers), of each row while it was left out.
        temperature: by which scores are divided to be confidences.
        strength: of the penalty that was chosen; 0 where there is none.
    """

    arm: Arm
    accuracy: float
    folds: Places
    scores: Numbers
    temperature: float
    strength: float = 0.0


def kinds_for(places: Places) -> list[ArmKind]:
    """The kinds that make sense: a head has an answer with two rows at least, on the average, and not too many."""
    distinct = len(np.unique(places))
    if 2 <= distinct <= min(MOST_CLASSES, len(places) / 2):
        return ["head", "nearest"]
    return ["nearest"]


def sample(places: Places | Groups, seed: int, most: int = MOST_ROWS) -> NDArray[np.int64]:
    """Rows to fit on, in their order: each answer keeps its share, and one row where there is room for all answers."""
    _, answer, sizes = np.unique(places, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(places))
    rank = np.empty(len(places))
    rank[order] = _rank_within(answer[order])
    chosen = order[np.argsort((rank / sizes[answer])[order], kind="stable")][:most]
    return np.sort(chosen)


def fit(kind: ArmKind, vectors: Numbers, places: Places, seed: int, groups: Groups | None = None) -> Fit:
    """Fit an arm whose confidence, on the average, is how often it is right out of fold.

    Args:
        kind: how it answers.
        vectors: (rows, dimensions), unit vectors of the questions; at most `MOST_ROWS`.
        places: (rows,), the answers from 0; each number below the highest is some row's.
        seed: of the folds. The same call gives the same numbers on the same machine.
        groups: (rows,), a number for rows that ask the same: what is known of one is no measure of the others. Each row
            by itself where left out.

    Raises:
        ValueError: no rows, too many, or numbers that are none.
    """
    if not 0 < len(vectors) <= MOST_ROWS or len(vectors) != len(places):
        raise ValueError(f"1 to {MOST_ROWS} rows with an answer each, not {len(vectors)} and {len(places)}")
    if not np.isfinite(vectors).all():
        raise ValueError("a vector holds what is no number")
    vectors, places = vectors.astype(np.float32), places.astype(np.int32)
    answers = int(places.max()) + 1
    folds = _folds(places, np.arange(len(places)) if groups is None else groups, seed)
    return (
        _fit_head(vectors, places, answers, folds) if kind == "head" else _fit_nearest(vectors, places, answers, folds)
    )


def _fit_head(vectors: Numbers, places: Places, answers: int, folds: Places) -> Fit:
    """Choose the penalty that errs least out of fold, and fit on all rows.

    The scores out of fold are those of regressions on the other folds; the penalty goes from the strongest to the
    weakest, each begun where the one before ended.
    """
    scaling = Scaling.of(vectors)
    scaled = scaling.apply(vectors)
    scores = [np.zeros((len(places), answers), dtype=np.float32) for _ in STRENGTHS]
    for fold in np.unique(folds):
        out = folds == fold
        weights = None
        for strength, scored in zip(STRENGTHS, scores, strict=True):
            if not out.all():
                weights = regress(scaled[~out], places[~out], answers, strength, weights)
                scored[out] = scaled[out] @ weights.T
    right = [(scored.argmax(axis=1) == places).mean() for scored in scores]
    chosen = int(np.argmax(right))  # the strongest of several
    temperature = temperature_of(scores[chosen], float(right[chosen]))
    weights = regress(scaled, places, answers, STRENGTHS[chosen], None) / np.float32(temperature)
    coefficients, intercepts = scaling.undo(weights)
    head = Head(coefficients, intercepts)
    return Fit(head, float(right[chosen]), folds, scores[chosen], temperature, STRENGTHS[chosen])


def _fit_nearest(vectors: Numbers, places: Places, answers: int, folds: Places) -> Fit:
    closest = np.full((len(places), answers), -1, dtype=np.float32)
    for fold in np.unique(folds):
        out = folds == fold
        closest[out] = closest_of_each(vectors[out], vectors[~out], places[~out], answers)
    right = float((closest.argmax(axis=1) == places).mean())
    temperature = temperature_of(closest, right)
    return Fit(Nearest(vectors, places, temperature, answers), right, folds, closest, temperature)


def temperature_of(scores: Numbers, accuracy: float) -> float:
    """The temperature at which the mean confidence is the accuracy.

    Expectation consistency (https://arxiv.org/abs/2303.02644): it needs no row's answer to have been seen out of fold.

    Args:
        scores: (rows, answers), out of fold.
        accuracy: share of rows whose highest score is that of their answer.
    """
    aim = (accuracy * len(scores) + 1) / (len(scores) + 2)  # nobody is sure after so few rows
    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(24):
        middle = (low + high) / 2
        if float(softmax(scores / np.float32(math.exp(middle))).max(axis=1).mean()) > aim:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _folds(places: Places, groups: Groups, seed: int) -> Places:
    """The fold of each row: a group is in one, those of one answer are spread over all, which have as many groups."""
    count = FOLDS if len(places) < MANY else FOLDS_OF_MANY
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    by_answer = order[np.argsort(places[first[order]], kind="stable")]
    folds = np.empty(len(first), dtype=np.int32)
    folds[by_answer] = np.arange(len(first)) % count
    return folds[group]


def _rank_within(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The how-manieth of its group each is, from 0."""
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    ranks = np.empty(len(groups), dtype=np.int64)
    begun = np.repeat(starts, np.diff(np.append(starts, len(groups))))
    ranks[order] = np.arange(len(groups)) - begun
    return ranks
