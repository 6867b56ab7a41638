"""What a metric is: it scores each row, now or after a wait, or it scores a set of rows as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from chassis.errors import Invalid
from evaluator.intervals import bootstrap_mean, bootstrap_statistic
from evaluator.rows import Row
from schemas import Interval

Range = tuple[float, float]

MeanInterval = Callable[[Sequence[float], int], Interval]
"""The interval of a mean, from the rows' scores and a seed."""


@dataclass(frozen=True)
class Case:
    """One row with the answer of one system."""

    row: Row
    answer: str

    @property
    def reference(self) -> str:
        """The answer it should have."""
        return self.row.reference


@dataclass(frozen=True)
class RowMetric:
    """Scores each row alone; its value on a set is the mean.

    Attributes:
        name: as it stands in evidence.
        score: of a row.
        interval: how the interval of the mean is computed.
        is_share: whether a row is right or wrong, so that the mean says how many are right.
        range: the least and the greatest score.
    """

    name: str
    score: Callable[[Case], float]
    interval: MeanInterval = bootstrap_mean
    is_share: bool = False
    range: Range = (0.0, 1.0)


@dataclass(frozen=True)
class AwaitedMetric:
    """As `RowMetric`, where the score has to be waited for: a judge's, or an engine's.

    What it found is kept with the answer, so that a later attempt goes on with the rows not scored yet.

    Attributes:
        name, interval, is_share, range: as those of `RowMetric`.
        score: of a row.
        definition: all that a score depends on besides the case, such as who judges, by which instructions and on which
            scale. What was found under another definition is not used.
    """

    name: str
    score: Callable[[Case], Awaitable[float]]
    definition: str
    interval: MeanInterval = bootstrap_mean
    is_share: bool = False
    range: Range = (0.0, 1.0)

    @property
    def key(self) -> str:
        """What its scores are kept under: one for each definition."""
        return f"{self.name}_{hashlib.sha256(self.definition.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class SetMetric:
    """Scores a set of rows, from counts that are made once for each row and add up.

    Attributes:
        name: as it stands in evidence.
        counts: of each case, in an array whose first axis is the cases.
        value: of the sum of counts of some cases.
        range: the least and the greatest value.
    """

    name: str
    counts: Callable[[Sequence[Case]], np.ndarray]
    value: Callable[[np.ndarray], float]
    range: Range = (0.0, 1.0)

    def interval(self, cases: Sequence[Case], seed: int) -> Interval:
        """Its value on the cases with the interval of the bootstrap."""
        counts = self.counts(cases)

        def on(places: Sequence[int]) -> float:
            return within(self, self.value(counts[list(places)].sum(axis=0)))

        return bootstrap_statistic(on, len(cases), seed)


Metric = RowMetric | AwaitedMetric | SetMetric


def within(metric: Metric, score: float) -> float:
    """A metric's score.

    Raises:
        Invalid: it is outside of the metric's range, so nothing can be concluded from it.
    """
    low, high = metric.range
    if not low <= score <= high:
        message = f"The metric {metric.name} gave {score:g}, and its scores are from {low:g} to {high:g}."
        raise Invalid(message, code="score_out_of_range")
    return score
