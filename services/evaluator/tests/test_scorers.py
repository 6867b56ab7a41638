"""Scorers and intervals against values worked out by hand or known from the literature."""

from __future__ import annotations

import pytest
from rouge_score.rouge_scorer import RougeScorer

from evaluator.intervals import bootstrap_difference, bootstrap_mean, bootstrap_statistic, wilson
from evaluator.scorers import chrf, exact_match, macro_f1, rouge_l

JAPANESE = "返品は三十日以内に受け付けます。"


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("refund", "refund", 1.0),
        ("  Refund\n", "refund", 1.0),
        ("refunds", "refund", 0.0),
        ("", "refund", 0.0),
        ("ＡＢＣ", "abc", 1.0),
        ("ｶﾞｲﾄﾞ", "ガイド", 1.0),
        ("返金", "返品", 0.0),
        ("STRASSE", "straße", 1.0),
    ],
)
def test_exact_match_ignores_only_form(answer: str, reference: str, score: float) -> None:
    assert exact_match(answer, reference) == score


@pytest.mark.parametrize("text", ["The parcel arrives on Monday.", JAPANESE, "ヤマト運輸 is fast", "ส่งคืนสินค้า"])
def test_equal_texts_score_one_in_every_script(text: str) -> None:
    assert chrf(text, text) == pytest.approx(1.0)
    assert rouge_l(text, text) == pytest.approx(1.0)


def test_the_usual_rouge_tokenizer_would_have_failed_on_japanese() -> None:
    assert RougeScorer(["rougeL"]).score(JAPANESE, JAPANESE)["rougeL"].fmeasure == 0.0


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("the cat sat", "the cat sat on the mat", 2 * 1.0 * 0.5 / 1.5),  # LCS 3 of 3 and of 6
        ("返品不可", "返品可能", 0.75),  # LCS 返品可, 3 of 4 and of 4
        ("mat the on sat cat the", "the cat sat on the mat", 3 / 6),  # the, sat, the
        ("xyz", "the cat", 0.0),
        ("", "the cat", 0.0),
    ],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(score)


def test_chrf_grades_japanese_by_closeness() -> None:
    near, far = "返品は二十日以内に受け付けます。", "お支払いはカードのみです。"
    assert 1 > chrf(near, JAPANESE) > 0.6 > chrf(far, JAPANESE)
    assert chrf("", JAPANESE) == 0.0


def test_macro_f1_weighs_rare_classes_like_common_ones() -> None:
    references = ["a", "a", "a", "b"]
    assert macro_f1(["a", "a", "a", "a"], references) == pytest.approx((6 / 7 + 0) / 2)
    assert macro_f1(references, references) == 1.0
    assert macro_f1(["a", "a", "a", "nonsense"], references) == pytest.approx((1 + 0) / 2)
    assert macro_f1(["Ａ", "a ", "A", "b"], references) == 1.0
    assert macro_f1([], []) == 0.0


def test_wilson_is_the_published_interval() -> None:
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I, method 3.
    found = wilson([1.0] * 81 + [0.0] * 182)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    none_right = wilson([0.0] * 20)
    assert (none_right.low, none_right.high) == (0.0, pytest.approx(0.1611, abs=5e-5))
    assert wilson([]).n == 0


def test_the_bootstrap_agrees_with_the_normal_interval_and_with_itself() -> None:
    values = [(place % 10) / 10 for place in range(200)]
    found = bootstrap_mean(values, seed=1)
    half = 1.96 * 0.2872 / 200**0.5
    assert found.value == pytest.approx(0.45)
    assert found.low == pytest.approx(0.45 - half, abs=0.005)
    assert found.high == pytest.approx(0.45 + half, abs=0.005)
    assert found == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_differences_are_paired() -> None:
    base = [(place * 7 % 11) / 11 for place in range(60)]
    better = [value + 0.05 for value in base]
    found = bootstrap_difference(better, base, seed=1)
    assert found.low == pytest.approx(0.05)
    assert found.high == pytest.approx(0.05)
    with pytest.raises(ValueError, match="zip"):
        bootstrap_difference([1.0], [1.0, 0.0], seed=1)


def test_a_statistic_gets_an_interval_around_its_value() -> None:
    references = ["a", "b"] * 30
    answers = ["a", "b"] * 20 + ["b", "a"] * 10
    found = bootstrap_statistic(
        lambda places: macro_f1([answers[i] for i in places], [references[i] for i in places]), 60, seed=1
    )
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == (pytest.approx(2 / 3 - 0.12, abs=0.03), pytest.approx(2 / 3 + 0.12, abs=0.03))
