"""Whether an answer is the reference."""

from __future__ import annotations

from collections.abc import Sequence

from evaluator.intervals import wilson
from evaluator.metrics.metric import Case, RowMetric
from evaluator.words import normalise
from schemas import Interval


def exact_match(case: Case) -> float:
    """1 if the two are equal once normalised, else 0. Its mean over rows is the accuracy."""
    return float(normalise(case.answer) == normalise(case.reference))


def _interval(scores: Sequence[float], _: int) -> Interval:
    return wilson(scores)


ACCURACY = RowMetric("accuracy", exact_match, _interval, is_share=True)
EXACT_MATCH = RowMetric("exact_match", exact_match, _interval, is_share=True)
