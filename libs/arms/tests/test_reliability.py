"""An arm is right as often as it is sure, and where it is not, the report shows it."""

from __future__ import annotations

import numpy as np
import pytest
from arms_rows import ANSWERS, KINDS, rows

from arms import data_report, fit
from arms.reliability import FEWEST_ROWS, MOST_BINS, confidences_of, reliability_of, wilson
from schemas.artifacts import CONFIDENCES, ArmKind, Reliability


def told(confidences: np.ndarray, right: np.ndarray) -> Reliability:
    found = reliability_of(confidences.astype(np.float32), right)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_arm_is_about_as_often_right_as_it_is_sure(kind: ArmKind) -> None:
    vectors, places = rows(600, 1.2, 1)
    found = data_report(fit(kind, vectors, places, seed=1), vectors, places, ANSWERS, {}, seed=1).reliability
    assert found is not None
    off = [abs(one.confidence - one.accuracy) for one in found.bins]
    assert len(found.bins) == MOST_BINS
    assert sum(off) / len(off) < 0.08
    assert found.bins[0].high < found.bins[-1].low


def test_who_is_surer_than_right_is_shown_as_that() -> None:
    chance = np.random.default_rng(1)
    confidences = chance.uniform(0.8, 1.0, 400)
    found = told(confidences, chance.random(400) < 0.5)
    assert all(one.high < one.confidence for one in found.bins)
    assert found.coverage[-1].high < found.coverage[-1].confidence


def test_bins_hold_all_rows_and_as_many_each_and_coverage_adds_up() -> None:
    chance = np.random.default_rng(2)
    confidences = chance.uniform(0.2, 1.0, 205)
    right = chance.random(205) < confidences
    found = told(confidences, right)
    assert {one.rows for one in found.bins} == {20, 21}
    assert sum(one.rows for one in found.bins) == 205
    assert [one.confidence for one in found.bins] == sorted(one.confidence for one in found.bins)
    assert sum(one.rows * one.accuracy for one in found.bins) == pytest.approx(right.sum())
    assert [one.confidence for one in found.coverage] == list(CONFIDENCES[:3])
    for one in found.coverage:
        assert one.rows == (confidences.astype(np.float32) >= one.confidence).sum()
        assert one.others is not None
        assert one.rows * one.accuracy + (205 - one.rows) * one.others == pytest.approx(right.sum())
        assert one.low < one.accuracy < one.high


def test_where_all_are_as_sure_there_is_one_bin_and_there_are_no_others() -> None:
    found = told(np.ones(60), np.ones(60, dtype=bool))
    assert [(one.rows, one.accuracy, one.others) for one in found.coverage] == [(60, 1.0, None)] * len(CONFIDENCES)
    [only] = found.bins
    assert (only.rows, only.accuracy, only.high) == (60, 1.0, pytest.approx(1.0))
    assert 0.9 < only.low < 1.0


@pytest.mark.parametrize("sure", [45, 50, 55])
def test_rows_of_which_it_is_as_sure_are_in_one_bin(sure: int) -> None:
    """However they stand: those that are right would be in one and those that are wrong in another."""
    confidences = np.array([0.3] * (100 - sure) + [1.0] * sure)
    right = np.arange(100) % 2 == 0
    found = told(confidences, np.sort(right))
    assert [one.rows for one in found.bins] == [100 - sure, sure]


def test_of_few_others_nothing_is_said() -> None:
    confidences = np.array([0.2] * (FEWEST_ROWS - 1) + [0.95] * 60)
    right = confidences > 0.5
    assert [one.others for one in told(confidences, right).coverage] == [None] * 3
    assert told(np.append(confidences, 0.2), np.append(right, False)).coverage[0].others == 0.0


def test_a_row_does_not_tell_of_itself() -> None:
    """One fold is hard: how sure it is there follows from the others."""
    scores = np.tile(np.array([[2.0, 0.0]], dtype=np.float32), (200, 1))
    folds = (np.arange(200) % 2).astype(np.int32)
    right = np.where(folds == 0, np.arange(200) % 5 < 3, np.arange(200) > 5)
    sure = confidences_of(scores, right, folds, 1.0)
    assert sure[folds == 0] == pytest.approx(right[folds == 1].mean(), abs=0.02)
    assert sure[folds == 1] == pytest.approx(right[folds == 0].mean(), abs=0.02)
    assert confidences_of(scores, right, np.zeros(200, dtype=np.int32), 1.0) == pytest.approx(0.881, abs=1e-3)


def test_few_rows_tell_nothing() -> None:
    few = 2 * FEWEST_ROWS - 1
    assert reliability_of(np.full(few, 0.5, dtype=np.float32), np.ones(few, dtype=bool)) is None
    assert told(np.full(few + 1, 0.4), np.ones(few + 1, dtype=bool)).coverage == []


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (98, 100, 0.93, 0.9945)]
)
def test_the_interval_is_wilsons(right: int, asked: int, low: float, high: float) -> None:
    assert wilson(right, asked) == pytest.approx((low, high), abs=1e-3)
