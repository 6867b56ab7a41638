"""Metrics and intervals against values worked out by hand or known from the literature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU as SACREBLEU

from chassis.errors import Invalid
from evaluator.intervals import bootstrap_difference, bootstrap_mean, bootstrap_statistic, wilson
from evaluator.metrics import BLEU, CHRF, EXACT_MATCH, MACRO_F1, MACRO_PRECISION, MACRO_RECALL, ROUGE_L, Case, SetMetric
from evaluator.metrics.classes import per_class
from evaluator.rows import Row

JAPANESE = "返品は三十日以内に受け付けます。"


def cases(answers: Sequence[str], references: Sequence[str]) -> list[Case]:
    return [
        Case(Row(place, ({"role": "user", "content": "?"},), reference), answer)
        for place, (answer, reference) in enumerate(zip(answers, references, strict=True))
    ]


def value(metric: SetMetric, answers: Sequence[str], references: Sequence[str]) -> float:
    return metric.value(metric.counts(cases(answers, references)).sum(axis=0))


def chrf(answer: str, reference: str) -> float:
    return CHRF.score(*cases([answer], [reference]))


def rouge_l(answer: str, reference: str) -> float:
    return ROUGE_L.score(*cases([answer], [reference]))


def bleu(*pairs: tuple[str, str]) -> float:
    return value(BLEU, *map(list, zip(*pairs, strict=True)))


def macro_f1(answers: Sequence[str], references: Sequence[str]) -> float:
    return value(MACRO_F1, answers, references)


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
    assert EXACT_MATCH.score(*cases([answer], [reference])) == score


@pytest.mark.parametrize("text", ["The parcel arrives on Monday.", JAPANESE, "ヤマト運輸 is fast", "ส่งคืนสินค้า"])
def test_equal_texts_score_one_in_every_script(text: str) -> None:
    assert chrf(text, text) == pytest.approx(1.0)
    assert rouge_l(text, text) == pytest.approx(1.0)
    assert bleu((text, text)) == pytest.approx(1.0)


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


def test_precision_and_recall_are_means_over_the_classes_that_are_wanted() -> None:
    references = ["a", "a", "a", "b", "b", "c"]
    answers = ["a", "b", "nonsense", "b", "a", "a"]
    # a: right 1 of 3 answered, of 3 wanted; b: 1 of 2, of 2; c: never answered, 1 wanted.
    assert value(MACRO_PRECISION, answers, references) == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert value(MACRO_RECALL, answers, references) == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert value(MACRO_PRECISION, ["a"] * 6, references) == pytest.approx((3 / 6) / 3)
    assert value(MACRO_RECALL, ["a"] * 6, references) == pytest.approx(1 / 3)
    found = {one.name: one for one in per_class(cases(answers, references))}
    assert list(found) == ["a", "b", "c"]
    assert (found["a"].rows, found["a"].answered, found["c"].rows, found["c"].answered) == (3, 3, 1, 0)
    assert (found["b"].precision, found["b"].recall, found["b"].f1) == (0.5, 0.5, 0.5)
    assert (found["c"].precision, found["c"].recall, found["c"].f1) == (0.0, 0.0, 0.0)
    assert [one.name for one in per_class(cases(["Ａ", "x"], ["A", "返品"]))] == ["A", "返品"]
    assert per_class([]) == []


def test_rows_that_want_none_of_a_class_say_nothing_of_it() -> None:
    counts = MACRO_F1.counts(cases(["a", "a", "b"], ["a", "a", "b"]))
    for metric in (MACRO_PRECISION, MACRO_RECALL, MACRO_F1):
        assert metric.value(counts[[0, 1, 1]].sum(axis=0)) == 1.0


def test_bleu_is_that_of_sacrebleu_over_all_rows_together() -> None:
    pairs = [
        ("the cat sat on the mat", "the cat sat on the red mat"),
        ("a parcel arrives on monday morning", "your parcel arrives on monday"),
        ("no", "the desk opens at nine"),
    ]
    corpus = SACREBLEU(tokenize="none").corpus_score([one for one, _ in pairs], [[other for _, other in pairs]])
    assert bleu(*pairs) == pytest.approx(corpus.score / 100)
    assert bleu(*pairs) != pytest.approx(np.mean([bleu(pair) for pair in pairs]), abs=0.05)
    assert bleu(("the the the the", "the cat")) < 0.3  # a run counts at most as often as the reference has it
    assert bleu(("the cat", "the cat sat on the mat")) == pytest.approx(np.exp(1 - 6 / 2))  # short answers are punished
    assert bleu(("Yes, it is.", "yes it is")) == pytest.approx(1.0)  # three words have no run of four
    assert bleu(("xyz", "the cat")) == bleu(("", "the cat")) == 0.0
    near, far = "返品は二十日以内に受け付けます。", "お支払いはカードのみです。"
    assert 1 > bleu((near, JAPANESE)) > 0.5 > bleu((far, JAPANESE))


@pytest.mark.parametrize("metric", [BLEU, MACRO_PRECISION, MACRO_RECALL, MACRO_F1], ids=lambda metric: metric.name)
def test_a_metric_of_a_set_has_an_interval_that_narrows_with_the_rows(metric: SetMetric) -> None:
    answers, references = ["red is it", "blue is it", "blue is it", "blue is it"], ["red is it", "blue is it"] * 2
    few, many = (metric.interval(cases(answers * times, references * times), 1) for times in (5, 50))
    whole = value(metric, answers * 5, references * 5)
    assert few.value == pytest.approx(whole)
    assert 0 < few.low < few.value < few.high <= 1
    assert (few.n, many.n) == (20, 200)
    assert many.high - many.low < few.high - few.low
    assert metric.interval(cases(answers, references), 7) == metric.interval(cases(answers, references), 7)
    nothing = metric.interval([], 1)
    assert (nothing.value, nothing.n) == (0.0, 0)


def test_a_score_outside_of_its_range_is_refused() -> None:
    percent = SetMetric("percent", lambda found: np.ones((len(found), 1)), lambda summed: 100 * float(summed[0]))
    with pytest.raises(Invalid, match=r"percent gave 100, and its scores are from 0 to 1"):
        percent.interval(cases(["a"], ["a"]), 1)


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
    assert found == MACRO_F1.interval(cases(answers, references), 1)
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == (pytest.approx(2 / 3 - 0.12, abs=0.03), pytest.approx(2 / 3 + 0.12, abs=0.03))
