"""What the rows tell once an arm is fitted to them: what more would bring, what is confused, and what looks wrong."""

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
from arms.reliability import Z, confidences_of, reliability_of, wilson
from schemas.artifacts import Confusion, CurvePoint, DataReport, Gain, LearningCurve, Suspect, WeakAnswers

PARTS = (8, 4, 2, 1)
"""Of the rows that a fold leaves: an eighth, a quarter, a half, all."""

FEWEST_WRONG = 5
"""Rows answered wrongly, of which fewer do not tell what more rows would bring."""

STEEPEST = 3.0
"""Slope from which a trend is not believed: a few rows allow any."""

FLATTEST = 1e-6
"""Slope under which there is none."""

MOST_WEAK = 4
FEWEST_EACH = 5
"""Rows more of an answer that are worth a word."""

MOST_CONFUSIONS = 20
MOST_SUSPECTS = 50

FEWEST_OTHERS = 2
"""Rows with the same answer that were known, where a row's answer looks wrong: else the others cannot tell."""

LONGEST_QUOTED = 2000
"""Characters of a question; a longer one is not quoted."""

SURE = 20.0
"""How many times as likely as its own a row's other answer is at least, out of fold, where its own looks wrong.

Tried on rows of which one in twenty was given a wrong answer (`bench/more_rows.py`): with half the factor as many of
these were named, and a quarter more of those that only are hard.
"""


@dataclass(frozen=True)
class Trend:
    """How the share of right answers grows: its logit, by the logarithm of the rows.

    Attributes:
        logit: with the most rows that were known.
        slope: by which it rises as rows grow e-fold, 0 or more.
        low: of the slope's 95 % interval.
        high: of the same.
        rows: the most that were known, fewer than all: a fold was left out.
    """

    logit: float
    slope: float
    low: float
    high: float
    rows: int


def data_report(
    fit: Fit, vectors: Numbers, places: Places, answers: Sequence[str], questions: Mapping[int, str], seed: int
) -> DataReport:
    """What more rows would bring, how far the arm's confidence holds, what is taken for what, and what looks wrong.

    Args:
        fit: of these rows.
        vectors: (rows, dimensions), unit vectors of the questions.
        places: (rows,), their answers.
        answers: by place.
        questions: by row; a row without one, or with a long one, is counted and not quoted.
        seed: of the parts of the curve.
    """
    rows, right = right_by_part(fit, vectors, places, seed)
    trend = trend_of(rows, right, len(places))
    points = [_point(*one, len(places)) for one in zip(rows, right, strict=True)]
    given = fit.scores.argmax(axis=1)
    is_right = given == places
    likely = softmax(fit.scores / np.float32(fit.temperature))
    suspects = _suspects(likely, places, fit.folds)
    return DataReport(
        arm=fit.arm.kind,
        rows=len(places),
        curve=LearningCurve(points=points, twice=gain_of_twice(trend, len(places))),
        reliability=reliability_of(confidences_of(fit.scores, is_right, fit.folds, fit.temperature), is_right),
        weakest=weakest(trend, places, given, answers),
        confusions=_confusions(places, given, answers),
        suspects=[
            Suspect(
                question=questions[row],
                answer=answers[places[row]],
                likelier=answers[given[row]],
                confidence=min(1.0, float(likely[row].max())),
            )
            for row in suspects
            if row in questions and len(questions[row]) <= LONGEST_QUOTED
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
    """Binomial regression of right answers on the logarithm of the rows; None where they do not tell.

    They do not where too few answers are wrong, and where fewer were right the more was known, or the slope is past
    belief.

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
    if slope > STEEPEST or slope + half < 0:
        return None
    slope, low, high = (one if one > FLATTEST else 0.0 for one in (slope, slope - half, min(slope + half, STEEPEST)))
    return Trend(logit, slope, low, high, known[-1][0])


def _point(rows: int, right: int, asked: int) -> CurvePoint:
    low, high = wilson(right, asked)
    return CurvePoint(rows=rows, accuracy=right / asked, low=low, high=high)


def gain_of_twice(trend: Trend | None, rows: int) -> Gain | None:
    """What as many rows again would bring, from all of them on."""
    if trend is None:
        return None

    def gain(slope: float) -> float:
        now = trend.logit + slope * math.log(rows / trend.rows)
        return _share(now + slope * math.log(2)) - _share(now)

    return Gain(rows=rows, gain=gain(trend.slope), low=gain(trend.low), high=gain(trend.high))


def weakest(trend: Trend | None, places: Places, given: Places, answers: Sequence[str]) -> WeakAnswers | None:
    """Those of which as many rows more as an answer has on the average would bring the most, each along the trend."""
    if trend is None or not trend.slope:
        return None
    rows = np.bincount(places, minlength=len(answers))
    right = np.bincount(places[given == places], minlength=len(answers))
    each = max(FEWEST_EACH, round(len(places) / len(answers)))
    wrong = rows - right
    growth = (rows + each) / np.maximum(rows, 1)

    def gains(slope: float) -> NDArray[np.float64]:
        odds = (right + 0.5) / (wrong + 0.5) * (len(places) / trend.rows) ** slope
        grown = odds * growth**slope
        risen: NDArray[np.float64] = rows / len(places) * (grown / (1 + grown) - odds / (1 + odds))
        return risen.clip(min=0.0)

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


def _suspects(likely: Numbers, places: Places, folds: Places) -> list[int]:
    """Rows for which another answer is likelier by far; the clearest first."""
    given = likely.argmax(axis=1)
    every = np.arange(len(places))
    own, other = likely[every, places], likely[every, given]
    rows = np.zeros((int(folds.max()) + 1, likely.shape[1]), dtype=np.int64)
    np.add.at(rows, (folds, places), 1)
    others = rows.sum(axis=0)[places] - rows[folds, places]
    suspect = (other >= SURE * own) & (others >= FEWEST_OTHERS)
    order = np.argsort(own - other, kind="stable")
    return [int(row) for row in order if suspect[row]]


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
