"""What the rows tell once an arm is fitted to them: what more of them would bring, and which of them look wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arms.answering import Numbers, Places, closest_of_each, softmax
from arms.fitting import Fit, sample
from arms.regression import Scaling, regress
from schemas.artifacts import Confusion, CurvePoint, DataReport, Gain, LearningCurve, Suspect, WeakAnswers

PARTS = (8, 4, 2, 1)
"""Of the rows that a fold leaves: an eighth, a quarter, a half, all."""

FEWEST_WRONG = 5
"""Rows answered wrongly, of which fewer do not tell what more rows would bring."""

STEEPEST = 3.0
"""Slope of a trend at most: what few rows allow besides is not believed."""

MOST_WEAK = 4
FEWEST_EACH = 5
"""Rows more of an answer that are worth a word."""

MOST_CONFUSIONS = 20
MOST_SUSPECTS = 50

FEWEST_OF_AN_ANSWER = 3
"""Rows with an answer, of which the others can tell that one is wrong."""

SURE = 20.0
"""How many times as likely as its own a row's other answer is at least, out of fold, where its own looks wrong.

Tried on intents of which one in twenty was given a wrong answer: from 12 to 13 of 14 of these were named, and of the
rows that were named from 60 to 95 % were these. With half the factor a quarter more rows were named that only are hard.
"""

Z = 1.96
"""Of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class Trend:
    """How the share of right answers grows: its logit, by the logarithm of the rows.

    Attributes:
        logit: with all rows.
        slope: by which it rises as rows grow e-fold, from 0 to `STEEPEST`, as its interval.
        low: of the 95 % interval.
        high: of the same.
    """

    logit: float
    slope: float
    low: float
    high: float


def data_report(
    fit: Fit, vectors: Numbers, places: Places, answers: Sequence[str], questions: Mapping[int, str], seed: int
) -> DataReport:
    """What more rows would bring, what is taken for what, and which rows look wrong.

    Args:
        fit: of these rows.
        vectors: (rows, dimensions), unit vectors of the questions.
        places: (rows,), their answers.
        answers: by place.
        questions: by row; a row without one is counted and not quoted.
        seed: of the parts of the curve.
    """
    rows, right = right_by_part(fit, vectors, places, seed)
    trend = trend_of(rows, right, len(places))
    points = [_point(*one, len(places)) for one in zip(rows, right, strict=True)]
    given = fit.scores.argmax(axis=1)
    likely = softmax(fit.scores / np.float32(fit.temperature))
    suspects = _suspects(likely, places)
    return DataReport(
        arm=fit.arm.kind,
        rows=len(places),
        curve=LearningCurve(points=points, twice=_gain_of_twice(trend, len(places))),
        weakest=_weakest(trend, places, given, answers),
        confusions=_confusions(places, given, answers),
        suspects=[
            Suspect(
                question=questions[row],
                answer=answers[places[row]],
                likelier=answers[given[row]],
                confidence=min(1.0, float(likely[row].max())),
            )
            for row in suspects
            if row in questions
        ][:MOST_SUSPECTS],
        suspects_found=len(suspects),
    )


def right_by_part(fit: Fit, vectors: Numbers, places: Places, seed: int) -> tuple[list[int], list[int]]:
    """How many rows the same arm knew, on the average of the folds, and how many others it answered rightly.

    All rows are asked for every part, so that these differ by what was known and by nothing else.
    """
    answers = fit.scores.shape[1]
    scaled = Scaling.of(vectors).apply(vectors) if fit.strength else vectors
    folds = np.unique(fit.folds)
    right, known = [0] * len(PARTS), [0] * len(PARTS)
    for fold in folds:
        out = fit.folds == fold
        [rest] = np.nonzero(~out)
        for number, part in enumerate(PARTS):
            chosen = rest[sample(places[rest], seed, math.ceil(len(rest) / part))]
            known[number] += len(chosen)
            if part == 1:
                scores = fit.scores[out]
            elif not len(chosen):
                continue
            elif fit.strength:
                weights = regress(scaled[chosen], places[chosen], answers, fit.strength, None)
                scores = scaled[out] @ weights.T
            else:
                scores = closest_of_each(vectors[out], vectors[chosen], places[chosen], answers)
            right[number] += int((scores.argmax(axis=1) == places[out]).sum())
    return [round(one / len(folds)) for one in known], right


def trend_of(rows: Sequence[int], right: Sequence[int], asked: int) -> Trend | None:
    """Binomial regression of right answers on the logarithm of the rows; None where too few are wrong to tell.

    Args:
        rows: that were known, growing.
        right: how many answers were right.
        asked: how many there were, at each number of rows.
    """
    known = [(one, found) for one, found in zip(rows, right, strict=True) if one]
    if len({one for one, _ in known}) < 2 or asked - known[-1][1] < FEWEST_WRONG:
        return None
    logs = np.log([one for one, _ in known])
    columns = np.stack([np.ones(len(known)), logs - logs[-1]], axis=1)
    found = np.array([right for _, right in known], dtype=np.float64)
    weights = np.array([0.0, 0.5])
    for _ in range(50):
        likely = 1 / (1 + np.exp(-columns @ weights))
        bend = (columns * (asked * likely * (1 - likely) + 1e-6)[:, None]).T @ columns
        step = np.linalg.solve(bend, columns.T @ (found - asked * likely))
        weights = weights + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-6:
            break
    half = Z * math.sqrt(np.linalg.inv(bend)[1, 1])
    logit, slope = float(weights[0]), float(weights[1])
    slope, low, high = (min(max(one, 0.0), STEEPEST) for one in (slope, slope - half, slope + half))
    return Trend(logit, slope, low, high)


def _point(rows: int, right: int, asked: int) -> CurvePoint:
    """A point of the curve with Wilson's interval."""
    share, spread = right / asked, Z * Z / asked
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / asked + spread / (4 * asked)) / (1 + spread)
    return CurvePoint(rows=rows, accuracy=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _gain_of_twice(trend: Trend | None, rows: int) -> Gain | None:
    if trend is None:
        return None
    low, gain, high = (
        _share(trend.logit + slope * math.log(2)) - _share(trend.logit)
        for slope in (trend.low, trend.slope, trend.high)
    )
    return Gain(rows=rows, gain=gain, low=low, high=high)


def _weakest(trend: Trend | None, places: Places, given: Places, answers: Sequence[str]) -> WeakAnswers | None:
    """Those of which as many rows more as an answer has on the average would bring the most, each along the trend."""
    if trend is None or not trend.slope:
        return None
    rows = np.bincount(places, minlength=len(answers))
    right = np.bincount(places[given == places], minlength=len(answers))
    each = max(FEWEST_EACH, round(len(places) / len(answers)))
    wrong = rows - right
    odds, growth = (right + 0.5) / (wrong + 0.5), (rows + each) / np.maximum(rows, 1)

    def gains(slope: float) -> NDArray[np.float64]:
        grown = odds * growth**slope
        risen: NDArray[np.float64] = rows / len(places) * (grown / (1 + grown) - odds / (1 + odds))
        return risen

    order = np.argsort(-gains(trend.slope), kind="stable")
    chosen = [int(one) for one in order if wrong[one]][:MOST_WEAK]
    low, gain, high = (float(gains(slope)[chosen].sum()) for slope in (trend.low, trend.slope, trend.high))
    more = Gain(rows=each * len(chosen), gain=gain, low=low, high=high)
    return WeakAnswers(answers=[answers[one] for one in chosen], each=each, more=more)


def _confusions(places: Places, given: NDArray[np.int64], answers: Sequence[str]) -> list[Confusion]:
    wrong = places != given
    pairs = Counter(zip(places[wrong].tolist(), given[wrong].tolist(), strict=True))
    most = sorted(pairs.items(), key=lambda one: (-one[1], one[0]))[:MOST_CONFUSIONS]
    return [Confusion(wanted=answers[one], given=answers[other], times=times) for (one, other), times in most]


def _suspects(likely: Numbers, places: Places) -> list[int]:
    """Rows for which another answer is likelier by far; the clearest first."""
    given = likely.argmax(axis=1)
    every = np.arange(len(places))
    own, other = likely[every, places], likely[every, given]
    rows = np.bincount(places, minlength=likely.shape[1])
    suspect = (other >= SURE * own) & (rows[places] >= FEWEST_OF_AN_ANSWER)
    order = np.argsort(own - other, kind="stable")
    return [int(row) for row in order if suspect[row]]


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
