"""What the arm that serves a name and the adapter tested beside it would do together, from what each answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluator.comparison import compare
from evaluator.domain import ServingArm
from evaluator.metrics import AwaitedMetric, RowMetric
from evaluator.replacement import arm_goes_on
from evaluator.rows import Row
from evaluator.store import Answer, Given
from evaluator.usage import usage_of
from schemas.artifacts import CONFIDENCES, Cascade, CascadeStep


def cascade_of(
    arm: ServingArm,
    metric: RowMetric | AwaitedMetric,
    scores: Mapping[str, Sequence[float]],
    rows: Sequence[Row],
    given: Given,
    *,
    seed: int,
    min_rows: int,
    may_serve: bool,
) -> Cascade | None:
    """Arm and adapter together, by each bound; None of an arm that does not say how sure it is.

    Args:
        arm: that serves the name.
        metric: that decides.
        scores: by system, its scores of `rows`.
        rows: that count.
        given: what was answered.
        seed: of the resampling.
        min_rows: on fewer nothing is advised.
        may_serve: whether the adapter may come into use after this test.
    """
    said = [given[arm.kind, row.index].confidence for row in rows]
    sure = [one for one in said if one is not None]
    if not rows or len(sure) < len(rows):
        return None
    steps, advised = [], None
    for below in CONFIDENCES:
        left = [one < below for one in sure]
        together = [scores["candidate" if is_left else arm.kind][place] for place, is_left in enumerate(left)]
        answers = [
            _answered(given[arm.kind, row.index], given["candidate", row.index] if is_left else None)
            for row, is_left in zip(rows, left, strict=True)
        ]
        steps.append(
            CascadeStep(
                below=below,
                handed_over=sum(left) / len(rows),
                score=metric.interval(together, seed),
                took=usage_of(answers),
            )
        )
        over_both = compare(scores["candidate"], together, seed)
        if advised is None and may_serve and not all(left) and arm_goes_on(over_both, min_rows=min_rows):
            advised = below
    return Cascade(arm=arm.kind, steps=steps, advised=advised)


def _answered(by_arm: Answer, by_adapter: Answer | None) -> Answer:
    """What an answer takes: of one that is left to the adapter, the tokens of that, and the time and cost of both."""
    if by_adapter is None:
        return by_arm
    costs = (by_arm.cost, by_adapter.cost)
    cost = None if None in costs else sum(one for one in costs if one is not None)
    return by_adapter.model_copy(update={"seconds": by_arm.seconds + by_adapter.seconds, "cost": cost})
