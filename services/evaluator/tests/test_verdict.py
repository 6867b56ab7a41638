"""The verdict from scores, and the sentence that explains it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from evaluator.comparison import ALPHA, compare, sign_flip_p_value
from evaluator.intervals import bootstrap_difference, wilson
from evaluator.metrics import ACCURACY, CHRF, RowMetric
from evaluator.verdict import Verdict, decide, untested


def judge(
    candidate: Sequence[float],
    base: Sequence[float],
    few_shot: Sequence[float] | None = None,
    metric: RowMetric = ACCURACY,
) -> Verdict:
    scores = {"candidate": metric.interval(candidate, 1), "base": metric.interval(base, 1)}
    over = None
    if few_shot is not None:
        scores["few_shot"] = metric.interval(few_shot, 1)
        over = bootstrap_difference(candidate, few_shot, 1)
    return decide(metric, scores, compare(candidate, base, 1), over, min_rows=10)


def rows(right: int, of: int) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


@pytest.mark.parametrize(
    ("candidate", "base", "few_shot", "kind"),
    [
        (rows(57, 58), rows(3, 58), rows(20, 58), "pass"),
        (rows(57, 58), rows(3, 58), None, "pass"),
        (rows(20, 58), rows(3, 58), rows(57, 58), "needs_human"),
        (rows(20, 58), rows(3, 58), rows(21, 58), "pass"),
        (rows(20, 58), rows(20, 58), rows(3, 58), "fail"),
        (rows(10, 58), rows(30, 58), rows(3, 58), "fail"),
        (rows(58, 58), rows(58, 58), None, "fail"),
        (rows(9, 9), rows(0, 9), rows(0, 9), "needs_human"),
        (rows(10, 10), rows(0, 10), rows(0, 10), "pass"),
        (rows(0, 0), rows(0, 0), None, "needs_human"),
    ],
)
def test_the_verdict_follows_the_intervals(
    candidate: list[float], base: list[float], few_shot: list[float] | None, kind: str
) -> None:
    assert judge(candidate, base, few_shot).kind == kind


@pytest.mark.parametrize(
    ("right", "commonest", "of", "kind"),
    [
        (20, 18, 20, "needs_human"),
        (100, 97, 100, "needs_human"),
        (100, 80, 100, "pass"),
        (28, 25, 100, "fail"),
        (25, 28, 100, "fail"),
        (18, 18, 20, "fail"),
    ],
)
def test_a_model_must_have_learned_more_than_the_commonest_answer(
    right: int, commonest: int, of: int, kind: str
) -> None:
    candidate, guess, base = rows(right, of), rows(commonest, of), rows(0, of)
    scores = {"candidate": wilson(candidate), "base": wilson(base)}
    over_guess = compare(candidate, guess, 1)
    found = decide(ACCURACY, scores, compare(candidate, base, 1), None, min_rows=10, over_guess=over_guess)
    assert found.kind == kind, found.reason


@pytest.mark.parametrize(("gains", "kind"), [(4, "needs_human"), (5, "needs_human"), (6, "pass")])
@pytest.mark.parametrize("of", [10, 20, 60])
def test_a_few_gains_without_a_loss_pass_only_where_chance_would_seldom_do_it(gains: int, kind: str, of: int) -> None:
    found = judge(rows(gains, of), rows(0, of))
    assert found.kind == kind, found.reason
    if kind == "needs_human":
        assert "chance alone does as well in" in found.reason


@pytest.mark.parametrize("of", [10, 12, 15, 20])
def test_systems_that_do_not_differ_pass_seldom_enough_where_answers_are_right_or_wrong(of: int) -> None:
    chance = np.random.default_rng(of)
    tests, right = 4000, chance.uniform(0.2, 0.8, size=4000)
    candidate, base = chance.random((2, tests, of)) < right[:, None]
    alike = Counter(zip((candidate & ~base).sum(1).tolist(), (base & ~candidate).sum(1).tolist(), strict=True))
    passed = 0
    for (gains, losses), times in alike.items():
        same = [0.0] * (of - gains - losses)
        if judge(rows(gains, gains + losses) + same, rows(0, gains) + rows(losses, losses) + same).kind == "pass":
            passed += times
    assert 0 < passed / tests <= ALPHA


@pytest.mark.parametrize("of", [10, 13])
def test_systems_that_do_not_differ_pass_seldom_enough_where_scores_are_graded(of: int) -> None:
    """By all ways to choose the signs of the differences: without a difference each is as likely as another."""
    sizes = np.random.default_rng(of).exponential(0.1, size=of)
    ways = [(np.array(way) * sizes).tolist() for way in itertools.islice(itertools.product((1, -1), repeat=of), 1024)]
    p_values = [sign_flip_p_value(way, 1) for way in ways]
    assert sum(p <= ALPHA for p in p_values) <= ALPHA * 2**of


def test_the_exact_test_is_that_of_the_books() -> None:
    assert sign_flip_p_value([1.0] * 9 + [-1.0], 1) == pytest.approx(11 / 1024)  # McNemar, 9 against 1
    # Fisher 1935, §21: Darwin's 15 pairs of plants, in eighths of an inch; 863 of 32,768 ways reach their sum.
    darwin = [49.0, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sign_flip_p_value(darwin, 1) == pytest.approx(863 / 32768)
    assert sign_flip_p_value([0.0] * 12, 1) == 1.0
    many = darwin + [value / 7 for value in darwin]
    drawn = sign_flip_p_value(many, 1)
    assert 0 < drawn < 863 / 32768
    assert drawn == sign_flip_p_value(many, 1)


def test_a_gain_within_the_noise_is_for_a_person() -> None:
    candidate = [1.0, 0.0] * 20 + [1.0]
    base = [0.0, 1.0] * 20 + [0.0]
    found = judge(candidate, base)
    assert found.kind == "needs_human"
    assert "not clear" in found.reason


def test_the_reason_has_the_numbers() -> None:
    reason = judge(rows(57, 58), rows(3, 58), rows(20, 58)).reason
    for fact in ("58 held-out rows", "57 right", "3 right", "20 right", "+93.1 points", "95 % interval"):
        assert fact in reason
    assert reason.count("\n") == 0


def test_generation_is_told_in_its_own_metric() -> None:
    found = judge([0.6, 0.7] * 10, [0.2, 0.3] * 10, metric=CHRF)
    assert found.kind == "pass"
    assert "chrF 65.0" in found.reason
    assert "chrF 25.0" in found.reason
    assert "+40.0 points" in found.reason


def test_examples_that_do_better_are_named() -> None:
    assert "examples in the prompt do better" in judge(rows(20, 58), rows(3, 58), rows(57, 58)).reason


def test_a_test_that_failed_says_why() -> None:
    found = untested("The model server does not hold the adapter.")
    assert found.kind == "needs_human"
    assert "does not hold the adapter" in found.reason
