"""What rows tell of themselves: what more of them would bring holds, and rows that are wrong are found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from arms_rows import ANSWERS, KINDS, rows

from arms import Numbers, data_report, fit
from arms.answering import Places
from arms.study import Trend, gain_of_twice, trend_of, weakest
from schemas.artifacts import ArmKind, DataReport

SEEDS = range(4)


def report(kind: ArmKind, vectors: Numbers, places: Places, questions: Sequence[int] | None = None) -> DataReport:
    asked = range(len(places)) if questions is None else questions
    fitted = fit(kind, vectors, places, seed=1)
    return data_report(fitted, vectors, places, ANSWERS, {row: f"question {row}" for row in asked}, seed=1)


def accuracy(kind: ArmKind, vectors: Numbers, places: Places, asked: tuple[Numbers, Places]) -> float:
    arm = fit(kind, vectors, places, seed=1).arm
    return float((arm.confidences(asked[0]).argmax(axis=1) == asked[1]).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_what_twice_the_rows_would_bring_is_about_what_they_bring(kind: ArmKind) -> None:
    promised, brought = [], []
    for seed in SEEDS:
        vectors, places = rows(240, 1.4, seed)
        asked = rows(2000, 1.4, seed + 100)
        found = report(kind, vectors[:120], places[:120]).curve.twice
        assert found is not None
        assert found.rows == 120
        assert found.low <= found.gain <= found.high
        promised.append(found.gain)
        brought.append(accuracy(kind, vectors, places, asked) - accuracy(kind, vectors[:120], places[:120], asked))
    assert np.mean(promised) > 0.02
    assert abs(np.mean(promised) - np.mean(brought)) < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_rises_and_ends_where_the_fit_was_measured(kind: ArmKind) -> None:
    vectors, places = rows(240, 1.2, 1)
    points = report(kind, vectors, places).curve.points
    assert [point.rows for point in points] == [24, 48, 96, 192]
    assert points[0].accuracy + 0.05 < points[-1].accuracy == fit(kind, vectors, places, seed=1).accuracy
    assert all(point.low < point.accuracy < point.high for point in points)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_the_answers_that_are_confused_would_bring_the_most(kind: ArmKind) -> None:
    vectors, places = rows(240, 0.7, 1)
    found = report(kind, vectors, places)
    assert found.weakest is not None
    assert set(found.weakest.answers[:2]) == {"answer 4", "answer 5"}
    assert found.weakest.each == 40
    assert found.weakest.more.rows == 40 * len(found.weakest.answers)
    assert found.weakest.more.gain > 0
    worst = {(one.wanted, one.given) for one in found.confusions[:2]}
    assert worst == {("answer 4", "answer 5"), ("answer 5", "answer 4")}
    assert [one.times for one in found.confusions] == sorted((one.times for one in found.confusions), reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_a_wrong_answer_are_found_and_few_others_named(kind: ArmKind) -> None:
    vectors, places = rows(240, 0.3, 1)
    places = np.minimum(places, 4).astype(np.int32)  # those that lie close are one answer
    wrong = np.random.default_rng(2).choice(240, 12, replace=False)
    places[wrong] = (places[wrong] + 1) % 5
    found = report(kind, vectors, places)
    named = {int(one.question.removeprefix("question ")) for one in found.suspects}
    assert len(named & set(wrong.tolist())) >= 8
    assert found.suspects_found == len(found.suspects) <= 14
    for one in found.suspects:
        row = int(one.question.removeprefix("question "))
        assert one.answer == ANSWERS[places[row]] != one.likelier
        assert one.confidence > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_right_are_not_suspected(kind: ArmKind) -> None:
    vectors, places = rows(240, 0.3, 1)
    places = np.minimum(places, 4).astype(np.int32)
    found = report(kind, vectors, places)
    assert (found.suspects_found, found.suspects, found.curve.twice, found.weakest) == (0, [], None, None)
    assert "cannot be told" in found.curve.said


def test_rows_that_are_hard_are_not_suspected() -> None:
    found = report("head", *rows(240, 1.2, 1))
    wrong = round((1 - found.curve.points[-1].accuracy) * 240)
    assert wrong > 30
    assert found.suspects_found < wrong / 4


def test_a_row_whose_answer_hardly_comes_again_is_not_suspected() -> None:
    vectors, places = rows(120, 0.2, 1)
    places = np.minimum(places, 4).astype(np.int32)
    places[:2] = 5
    assert not {one.answer for one in report("head", vectors, places).suspects} & {ANSWERS[5]}


def test_what_is_not_quoted_is_counted_and_what_is_quoted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, places = rows(240, 0.3, 1)
    places = np.minimum(places, 4).astype(np.int32)
    places[:20] = (places[:20] + 1) % 5
    every = report("head", vectors, places)
    assert report("head", vectors, places, questions=[]).suspects == []
    assert report("head", vectors, places, questions=[]).suspects_found == every.suspects_found
    monkeypatch.setattr("arms.study.MOST_SUSPECTS", 3)
    assert report("head", vectors, places).suspects == every.suspects[:3]
    monkeypatch.setattr("arms.study.LONGEST_QUOTED", 3)
    assert report("head", vectors, places).suspects == []


def test_answers_as_long_as_a_page_are_cut() -> None:
    vectors, places = rows(240, 0.7, 1)
    fitted = fit("head", vectors, places, seed=1)
    pages = [f"{number} " + "word " * 100_000 for number in range(len(ANSWERS))]
    found = data_report(fitted, vectors, places, pages, dict.fromkeys(range(240), "why? " * 400), seed=1)
    assert found.confusions
    assert len(found.model_dump_json()) < 200_000


def test_rows_whose_answers_were_dealt_promise_nothing_that_is_sure() -> None:
    vectors, places = rows(240, 0.3, 1)
    found = report("head", vectors, np.random.default_rng(5).permutation(places)).curve.twice
    assert found is not None
    assert found.low < 0.01


@pytest.mark.parametrize(
    ("logit", "slope"), [(0.5, 0.6), (-1.0, 0.3), (2.0, 1.0), (0.0, 0.0)], ids=["middle", "hard", "easy", "flat"]
)
def test_a_trend_is_found_again(logit: float, slope: float) -> None:
    known = [50, 100, 200, 400]
    right = [round(4000 / (1 + math.exp(-logit - slope * math.log(one / 400)))) for one in known]
    found = trend_of(known, right, 4000)
    assert found is not None
    assert found.logit == pytest.approx(logit, abs=0.05)
    assert found.slope == pytest.approx(slope, abs=0.02)
    assert found.low <= slope + 1e-3
    assert found.high >= slope - 1e-3


@pytest.mark.parametrize(
    ("known", "right", "asked"),
    [([10, 20, 40, 80], [90, 95, 97, 98], 100), ([40], [10], 100), ([], [], 10), ([8, 8], [1, 2], 10)],
    ids=["few wrong", "one point", "none", "as many rows"],
)
def test_where_nothing_tells_nothing_is_said(known: list[int], right: list[int], asked: int) -> None:
    assert trend_of(known, right, asked) is None


@pytest.mark.parametrize("right", [[95, 80, 60, 40], [0, 0, 2, 90]], ids=["falls", "at once"])
def test_what_is_past_belief_is_not_said(right: list[int]) -> None:
    assert trend_of([10, 20, 40, 80], right, 100) is None


@pytest.mark.parametrize("right", [[114] * 4, [0] * 4, [60, 61, 60, 60], [30, 31, 32, 31]])
@pytest.mark.parametrize("asked", [143, 150])
def test_a_flat_curve_promises_little_and_breaks_nothing(right: list[int], asked: int) -> None:
    found = trend_of([10, 20, 40, 80], right, asked)
    assert found is not None
    assert all(math.isfinite(one) and one >= 0 for one in (found.slope, found.low, found.high))
    gain = gain_of_twice(found, 100)
    assert gain is not None
    assert 0 <= gain.low <= gain.gain < 0.01
    given = np.array([row % 6 if row % 5 else (row + 1) % 6 for row in range(asked)])
    weak = weakest(found, (np.arange(asked) % 6).astype(np.int32), given, ANSWERS)
    assert weak is None or 0 <= weak.more.low <= weak.more.gain <= weak.more.high


def test_twice_the_rows_begins_where_all_rows_are_known() -> None:
    trend = Trend(logit=0.0, slope=1.0, low=1.0, high=1.0, rows=80)
    gain = gain_of_twice(trend, 100)
    assert gain is not None
    assert gain.gain == pytest.approx(2.5 / 3.5 - 1.25 / 2.25)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_ask_the_same_do_not_make_each_other_suspect(kind: ArmKind) -> None:
    vectors, places = rows(120, 0.2, 1)
    places = np.minimum(places, 4).astype(np.int32)
    places[:3] = 5
    vectors[:3] = vectors[0]
    groups = np.arange(120)
    groups[:3] = 0
    fitted = fit(kind, vectors, places, seed=1, groups=groups)
    found = data_report(fitted, vectors, places, ANSWERS, {row: f"question {row}" for row in range(120)}, seed=1)
    assert ANSWERS[5] not in {one.answer for one in found.suspects}


def test_many_rows_are_studied_by_fewer_folds() -> None:
    vectors, places = rows(1500, 1.2, 1)
    found = report("nearest", vectors, places).curve
    assert [point.rows for point in found.points] == [125, 250, 500, 1000]
    assert found.twice is not None
    assert found.twice.rows == 1500


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [[0], [0, 1], [0, 0, 0], [0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2]])
def test_few_rows_are_studied(kind: ArmKind, places: list[int]) -> None:
    vectors, _ = rows(len(places), 0.3, 1)
    found = report(kind, vectors, np.array(places, dtype=np.int32))
    assert found.rows == len(places)
    assert DataReport.model_validate_json(found.model_dump_json()) == found
