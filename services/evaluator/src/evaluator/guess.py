"""The one answer that whoever knows no question would always give: the commonest, or of free text the most typical."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evaluator.metrics import Case, RowMetric
from evaluator.rows import Row, shuffled

GUESSES = 16
"""Most answers of free text that are tried, the commonest first."""

COMPARED = 32
"""Most rows by which they are tried."""

READ_CHARACTERS = 200
"""Of a row's answer and of a guess, so much is compared: a metric of long texts takes long, and somebody waits."""


def best_guess(train: Sequence[Row], metric: RowMetric, seed: int, *, of_classes: bool) -> str:
    """The training answer that is best given to every question; it knows no held-out row.

    Args:
        train: training rows.
        metric: by which free text is compared.
        seed: of the choice of rows.
        of_classes: whether answers are classes, of which the commonest is right most often.
    """
    taught = [row for row in train if row.taught]
    if of_classes or not taught:
        return _commonest([row.reference for row in taught], 1)[0]
    rows = shuffled(taught, seed)
    compared = [replace(row, reference=row.reference[:READ_CHARACTERS]) for row in rows[:COMPARED]]
    tried = _commonest([row.reference for row in rows], GUESSES)
    worth = [np.mean([metric.score(Case(row, guess[:READ_CHARACTERS])) for row in compared]) for guess in tried]
    return tried[int(np.argmax(worth))]


def _commonest(answers: Sequence[str], count: int) -> list[str]:
    """The commonest answers, of equally common ones that first which comes first; nothing where there are none."""
    return [answer for answer, _ in Counter(answers).most_common(count)] or [""]
