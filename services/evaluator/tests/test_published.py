"""Candidates that are judged by what their runs measured of held-out text."""

from __future__ import annotations

import math

import pytest

from chassis.errors import Invalid
from evaluator.published import PUBLISHED

SUITE = PUBLISHED["pretrain"]


def measured(gain: float = 0.4, error: float = 0.05, passages: int = 60) -> dict[str, float]:
    return {
        "heldout_perplexity": 20 / math.exp(gain),
        "heldout_error": 0.1,
        "base_heldout_perplexity": 20.0,
        "base_heldout_error": 0.12,
        "heldout_gain": gain,
        "heldout_gain_error": error,
        "heldout_passages": float(passages),
        "train_loss": 2.0,
    }


@pytest.mark.parametrize(
    ("gain", "error", "passages", "verdict", "said"),
    [
        (0.4, 0.05, 60, "pass", "The gain is clear: +0.400 nats a token (95 % interval +0.302 to +0.498)"),
        (0.05, 0.05, 60, "needs_human", "is not clear"),
        (-0.2, 0.05, 60, "fail", "It is no better"),
        (0.0, 0.0, 60, "fail", "It is no better"),
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
    assert scores["base"].low == pytest.approx(20 * math.exp(-1.96 * 0.12))
    assert scores["base"].low < 20 < scores["base"].high
    assert {score.n for score in scores.values()} == {passages}
    assert evidence["measured_by"] == "the training run"
    assert evidence["differences"]["candidate - base"]["value"] == gain


def test_a_run_that_published_something_else_is_not_judged() -> None:
    published = measured()
    del published["heldout_gain_error"]
    with pytest.raises(Invalid, match="no 'heldout_gain_error', by which the model would be judged"):
        SUITE.judge(published, 10)
