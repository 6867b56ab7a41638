"""The verdict from scores, and the sentence that explains it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evaluator.intervals import bootstrap_difference, bootstrap_mean, wilson
from evaluator.verdict import Verdict, decide, untested


def judge(
    candidate: Sequence[float], base: Sequence[float], few_shot: Sequence[float] | None = None, metric: str = "accuracy"
) -> Verdict:
    interval = wilson if metric == "accuracy" else lambda values: bootstrap_mean(values, 1)
    scores = {"candidate": interval(candidate), "base": interval(base)}
    over = None
    if few_shot is not None:
        scores["few_shot"] = interval(few_shot)
        over = bootstrap_difference(candidate, few_shot, 1)
    return decide(metric, scores, bootstrap_difference(candidate, base, 1), over, min_rows=10)


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
    over_guess = bootstrap_difference(candidate, guess, 1)
    found = decide(
        "accuracy", scores, bootstrap_difference(candidate, base, 1), None, min_rows=10, over_guess=over_guess
    )
    assert found.kind == kind, found.reason


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
    found = judge([0.6, 0.7] * 10, [0.2, 0.3] * 10, metric="chrF")
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
