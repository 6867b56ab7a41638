"""Precision, recall and F1 of answers that are classes: of each class, and their means over the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluator.metrics.metric import Case, SetMetric
from evaluator.words import normalise

RIGHT, ANSWERED, WANTED = range(3)


@dataclass(frozen=True)
class ClassScores:
    """How one system did on one class.

    Attributes:
        name: the class, as its first reference spells it.
        rows: that have it as their reference.
        answered: how often the system gave it.
        precision: the share of `answered` that was right, 0 where there is none.
        recall: the share of `rows` that was answered right.
        f1: their harmonic mean.
    """

    name: str
    rows: int
    answered: int
    precision: float
    recall: float
    f1: float


def counts(cases: Sequence[Case]) -> np.ndarray:
    """For each case, by class of the references: whether it was answered right, was the answer, and was wanted.

    Shape (cases, 3, classes). An answer that is no class at all is a miss for its reference's class and a false alarm
    for none.
    """
    place = {name: at for at, name in enumerate(_classes(cases))}
    found = np.zeros((len(cases), 3, len(place)), dtype=int)
    for row, case in enumerate(cases):
        answer, reference = normalise(case.answer), normalise(case.reference)
        found[row, WANTED, place[reference]] = 1
        if answer in place:
            found[row, ANSWERED, place[answer]] = 1
        if answer == reference:
            found[row, RIGHT, place[reference]] = 1
    return found


def per_class(cases: Sequence[Case]) -> list[ClassScores]:
    """The scores of each class of the references, in the order of the classes."""
    summed = counts(cases).sum(axis=0)
    measured = zip(_classes(cases).values(), summed.T, _precision(summed), _recall(summed), _f1(summed), strict=True)
    return [
        ClassScores(name, int(of[WANTED]), int(of[ANSWERED]), float(precision), float(recall), float(f1))
        for name, of, precision, recall, f1 in measured
    ]


def _classes(cases: Sequence[Case]) -> dict[str, str]:
    """The classes of the references, as they are compared -> as the first one spells it, sorted."""
    spelled: dict[str, str] = {}
    for case in cases:
        spelled.setdefault(normalise(case.reference), case.reference)
    return dict(sorted(spelled.items()))


def _precision(summed: np.ndarray) -> np.ndarray:
    return _share(summed[RIGHT], summed[ANSWERED])


def _recall(summed: np.ndarray) -> np.ndarray:
    return _share(summed[RIGHT], summed[WANTED])


def _f1(summed: np.ndarray) -> np.ndarray:
    return _share(2 * summed[RIGHT], summed[ANSWERED] + summed[WANTED])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    shares: np.ndarray = part / np.maximum(whole, 1)
    return shares


def macro_precision(summed: np.ndarray) -> float:
    """Mean over the classes of the references of each class's precision, TP / (TP + FP)."""
    return _mean(_precision(summed), summed)


def macro_recall(summed: np.ndarray) -> float:
    """Mean over the classes of the references of each class's recall, TP / (TP + FN)."""
    return _mean(_recall(summed), summed)


def macro_f1(summed: np.ndarray) -> float:
    """Mean over the classes of the references of each class's F1, 2·TP / (2·TP + FP + FN)."""
    return _mean(_f1(summed), summed)


def _mean(of_classes: np.ndarray, summed: np.ndarray) -> float:
    """The mean over the classes that are wanted: a resample may hold none of a class's rows."""
    wanted = summed[WANTED] > 0
    return float(of_classes[wanted].mean()) if wanted.any() else 0.0


MACRO_PRECISION = SetMetric("macro_precision", counts, macro_precision)
MACRO_RECALL = SetMetric("macro_recall", counts, macro_recall)
MACRO_F1 = SetMetric("macro_f1", counts, macro_f1)
