"""Candidates that are judged by what their runs measured of held-out text."""

from __future__ import annotations

import math

import pytest

from chassis.errors import Invalid
from evaluator.published import PUBLISHED, t95

SUITE = PUBLISHED["pretrain"]
STUDENT = {4: 2.776, 5: 2.571, 8: 2.306, 9: 2.262, 30: 2.042, 49: 2.010, 999: 1.962, 100_000: 1.960}
"""The 97.5 % quantile by degrees of freedom, from a table."""


def measured(gain: float = 0.4, error: float = 0.05, passages: int = 1000, documents: int = 0) -> dict[str, float]:
    return {
        "heldout_perplexity": 20 / math.exp(gain),
        "heldout_error": 0.1,
        "base_heldout_perplexity": 20.0,
        "base_heldout_error": 0.12,
        "heldout_gain": gain,
        "heldout_gain_error": error,
        "heldout_passages": float(passages),
        "heldout_documents": float(documents),
        "train_loss": 2.0,
    }


@pytest.mark.parametrize(
    ("gain", "error", "passages", "verdict", "said"),
    [
        (0.4, 0.05, 1000, "pass", "clear: +0.400 nats a token (95 % interval +0.302 to +0.498, over 1000 passages)"),
        (0.05, 0.05, 1000, "needs_human", "is not clear"),
        (-0.2, 0.05, 1000, "fail", "It is no better"),
        (0.0, 0.0, 1000, "fail", "It is no better"),
        (0.4, 0.0, 9, "needs_human", "too few to decide (at least 10 needed)"),
    ],
)
def test_the_interval_of_the_gain_decides(gain: float, error: float, passages: int, verdict: str, said: str) -> None:
    found, metrics, evidence = SUITE.judge(measured(gain, error, passages), 10)
    assert found.kind == verdict
    assert said in found.reason
    assert "(lower is better)" in found.reason
    scores = metrics["heldout_perplexity"]
    assert set(scores) == {"base", "candidate"}
    assert scores["base"].value == 20.0
    assert scores["base"].low == pytest.approx(20 * math.exp(-STUDENT[passages - 1] * 0.12), rel=1e-3)
    assert scores["base"].low < 20 < scores["base"].high
    assert {score.n for score in scores.values()} == {passages}
    assert evidence["measured_by"] == "the training run"
    assert evidence["differences"]["candidate - base"]["value"] == gain
    assert evidence["interval_over"] == {"unit": "passages", "n": passages}


@pytest.mark.parametrize(
    ("gain", "documents", "verdict", "said"),
    [
        (0.4, 1, "needs_human", "too few held-out documents to say how sure that is: 1, and at least 5 are"),
        (-0.4, 4, "needs_human", "too few held-out documents"),
        (0.12, 5, "needs_human", "Whether it is better is not clear"),
        (0.12, 50, "pass", "over 50 documents"),
    ],
)
def test_of_whole_documents_their_number_counts_and_not_that_of_their_passages(
    gain: float, documents: int, verdict: str, said: str
) -> None:
    found, metrics, evidence = SUITE.judge(measured(gain, 0.05, 300, documents), 10)
    assert (found.kind, said in found.reason) == (verdict, True), found.reason
    assert "On 300 held-out passages" in found.reason
    assert metrics["heldout_perplexity"]["base"].n == evidence["passages"] == 300
    assert evidence["interval_over"] == {"unit": "documents", "n": documents}


@pytest.mark.parametrize("documents", [0, 1])
def test_one_measurement_decides_nothing_whatever_the_installation_calls_enough(documents: int) -> None:
    found, _, _ = SUITE.judge(measured(0.4, 0.0, 1, documents), 1)
    assert found.kind == "needs_human"


@pytest.mark.parametrize("freedom", STUDENT)
def test_the_interval_is_students(freedom: int) -> None:
    assert t95(freedom) == pytest.approx(STUDENT[freedom], rel=4e-3)


def test_a_run_that_published_something_else_is_not_judged() -> None:
    published = measured()
    del published["heldout_gain_error"]
    with pytest.raises(Invalid, match="no 'heldout_gain_error', by which the model would be judged"):
        SUITE.judge(published, 10)
