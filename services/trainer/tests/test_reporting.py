"""What the rows of a job tell, in sentences."""

from __future__ import annotations

import pytest

from schemas.artifacts import Coverage, DataReport, LearningCurve, Reliability
from trainer.arms.reporting import sentences_of


def coverage(confidence: float, rows: int, accuracy: float, others: float | None = None) -> Coverage:
    return Coverage(confidence=confidence, rows=rows, accuracy=accuracy, low=0, high=1, others=others)


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([coverage(0.5, 900, 0.9), coverage(0.9, 600, 0.97, 0.715), coverage(0.99, 400, 1.0, 0.8)],
         "The arm was at least 90% sure of 600 of 1,000 rows: 97% of these answers were right, and 72% of the others."),
        ([coverage(0.5, 300, 0.81, 0.4)],
         "The arm was at least 50% sure of 300 of 1,000 rows: 81% of these answers were right, and 40% of the others."),
        ([coverage(0.5, 1000, 0.999)],
         "The arm was at least 50% sure of 1,000 of 1,000 rows: 99% of these answers were right."),
        ([coverage(0.5, 900, 1.0, 0.001)],
         "The arm was at least 50% sure of 900 of 1,000 rows: 100% of these answers were right, and 1% of the others."),
        ([coverage(0.5, 900, 1.0, 0.0)],
         "The arm was at least 50% sure of 900 of 1,000 rows: 100% of these answers were right, and 0% of the others."),
    ],
)  # fmt: skip
def test_how_far_its_confidence_holds_is_said_at_the_highest_that_half_of_the_rows_reach(
    levels: list[Coverage], said: str
) -> None:
    assert sentences_of(report(Reliability(bins=[], coverage=levels)))[1:] == [said]


@pytest.mark.parametrize("reliability", [None, Reliability(bins=[], coverage=[])])
def test_where_nothing_tells_of_its_confidence_nothing_is_said(reliability: Reliability | None) -> None:
    assert len(sentences_of(report(reliability))) == 1


def report(reliability: Reliability | None) -> DataReport:
    curve = LearningCurve(points=[], twice=None)
    return DataReport(arm="head", rows=1000, curve=curve, reliability=reliability, confusions=[], suspects=[])
