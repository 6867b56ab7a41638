"""What an arm and the adapter tested beside it would do together, from what each answered."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evaluator.cascade import cascade_of
from evaluator.domain import ServingArm
from evaluator.metrics import ACCURACY
from evaluator.rows import Row
from evaluator.store import Answer
from evaluator.verdict import Verdict, in_cascade
from schemas.artifacts import CONFIDENCES, Cascade

ARM = ServingArm(kind="head", version="ft:m@head", arm_id="arm-1")


def cascade(
    arm: Sequence[float],
    adapter: Sequence[float],
    sure: Sequence[float | None],
    *,
    may_serve: bool = True,
    min_rows: int = 10,
    cost: float | None = 1.0,
) -> Cascade | None:
    """Of rows by whether each got them right and how sure the arm was; a row takes the arm 1 s and the adapter 5."""
    rows = [Row(place, (), "") for place in range(len(sure))]
    given = {
        **{("head", place): _answer("head", place, 1.0, 0.25, confidence=one) for place, one in enumerate(sure)},
        **{("candidate", place): _answer("candidate", place, 5.0, cost) for place in range(len(sure))},
    }
    scores = {"head": arm, "candidate": adapter}
    return cascade_of(ARM, ACCURACY, scores, rows, given, seed=1, min_rows=min_rows, may_serve=may_serve)


def _answer(system: str, row: int, seconds: float, cost: float | None, confidence: float | None = None) -> Answer:
    tokens = 7 if system == "candidate" else 1
    return Answer(system=system, row=row, seconds=seconds, cost=cost, confidence=confidence, completion_tokens=tokens)


def test_what_the_arm_is_unsure_of_counts_as_the_adapters() -> None:
    sure = [0.3] * 10 + [0.6] * 10 + [0.7] * 10 + [0.95] * 20
    found = cascade([0.0] * 20 + [1.0] * 30, [1.0] * 40 + [0.0] * 10, sure)
    assert found is not None
    assert [(one.below, one.handed_over, one.score.value) for one in found.steps] == [
        (0.5, 0.2, 0.8),
        (0.7, 0.4, 1.0),
        (0.9, 0.6, 1.0),
        (0.99, 1.0, 0.8),
    ]
    assert {one.score.n for one in found.steps} == {50}
    assert found.advised == 0.5  # already as good as the adapter, and it leaves the least


def test_the_least_bound_is_advised_by_which_both_do_as_well_as_the_adapter() -> None:
    sure = [0.3] * 10 + [0.6] * 10 + [0.8] * 10 + [0.999] * 30
    found = cascade([0.0] * 30 + [1.0] * 30, [1.0] * 60, sure)
    assert found is not None
    assert [one.score.value for one in found.steps] == [pytest.approx(one) for one in (4 / 6, 5 / 6, 1.0, 1.0)]
    assert found.advised == 0.9
    assert found.advised_step is found.steps[2]


@pytest.mark.parametrize(
    ("arm", "adapter", "sure", "more"),
    [
        ([0.0] * 30 + [1.0] * 30, [1.0] * 60, [0.995] * 60, {}),
        ([0.0] * 30 + [1.0] * 30, [1.0] * 60, [0.1] * 60, {}),
        ([1.0] * 60, [1.0] * 60, [0.1] * 30 + [0.995] * 30, {"may_serve": False}),
        ([0.0] * 4 + [1.0] * 5, [1.0] * 9, [0.1] * 4 + [0.995] * 5, {}),
        ([0.0] * 59 + [1.0], [1.0] * 60, [0.3] * 59 + [0.995], {}),
        ([1.0] * 15 + [0.0] * 15, [0.0] * 15 + [1.0] * 15, [0.6] * 15 + [0.95] * 15, {}),
        ([0.0] * 30 + [1.0] * 30, [1.0] * 60, [0.3] * 30 + [0.995] * 30, {"cost": 0.1}),
    ],
    ids=[
        "sure of what is wrong",
        "unsure of all",
        "the adapter comes into no use",
        "too few rows",
        "nearly all is left and takes longer",
        "as good by chance, and worse where more is left",
        "for more money",
    ],
)
def test_nothing_is_advised_where_both_do_not_do_as_well_or_only_one_answers(
    arm: list[float], adapter: list[float], sure: list[float], more: dict
) -> None:
    found = cascade(arm, adapter, sure, **more)
    assert found is not None
    assert [one.below for one in found.steps] == list(CONFIDENCES)
    assert found.advised is None
    assert found.advised_step is None


def test_an_answer_that_is_left_takes_the_time_and_cost_of_both() -> None:
    found = cascade([1.0] * 20, [1.0] * 20, [0.6] * 5 + [0.95] * 15)
    assert found is not None
    none, few, *_ = (one.took for one in found.steps)
    assert (none.cost, none.seconds_median, none.seconds_p95, none.completion_tokens) == (5.0, 1.0, 1.0, 20)
    assert (few.cost, few.seconds_median, few.seconds_p95, few.completion_tokens) == (5.0 + 5.0, 1.0, 6.0, 15 + 5 * 7)


def test_there_is_no_cost_where_one_of_both_has_no_price() -> None:
    found = cascade([1.0] * 20, [1.0] * 20, [0.6] * 5 + [0.95] * 15, cost=None)
    assert found is not None
    assert [one.took.cost for one in found.steps] == [5.0, None, None, None]


@pytest.mark.parametrize("sure", [[], [None] * 12, [0.9] * 11 + [None]], ids=["no rows", "another release", "one"])
def test_there_is_none_where_the_arm_does_not_say_how_sure_it_is(sure: list[float | None]) -> None:
    assert cascade([1.0] * len(sure), [1.0] * len(sure), sure) is None


def test_the_verdict_says_what_both_do_together() -> None:
    found = cascade([0.0] * 10 + [1.0] * 30, [1.0] * 40, [0.6] * 10 + [0.999] * 30)
    assert found is not None
    assert found.advised_step is not None
    said = in_cascade(Verdict("pass", "It is better."), ACCURACY, "the head", found.advised_step)
    assert said == Verdict(
        "pass",
        "It is better. Where it answers only what the head is less than 70 % sure of, 25 % of these rows, "
        "the two together got 40 right: +0.0 points (95 % interval +0.0 to +0.0) against it alone.",
    )
