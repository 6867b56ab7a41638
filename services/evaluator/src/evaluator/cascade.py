"""What the arm that serves a name and the adapter tested beside it would do together, from what each answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluator.comparison import compare
from evaluator.domain import ServingArm
from evaluator.metrics import AwaitedMetric, RowMetric
from evaluator.replacement import arm_goes_on
from evaluator.rows import Row
from evaluator.store import Answer, Given
from evaluator.usage import price, usage_of
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
    steps, as_well, less = [], [], []
    alone = [given["candidate", row.index] for row in rows]
    for below in CONFIDENCES:
        left = [one < below for one in sure]
        together = [scores["candidate" if is_left else arm.kind][place] for place, is_left in enumerate(left)]
        answers = [
            _answered(given[arm.kind, row.index], by_adapter if is_left else None)
            for row, by_adapter, is_left in zip(rows, alone, left, strict=True)
        ]
        steps.append(
            CascadeStep(
                below=below,
                handed_over=sum(left) / len(rows),
                score=metric.interval(together, seed),
                over_adapter=compare(together, scores["candidate"], seed).interval,
                took=usage_of(answers),
            )
        )
        as_well.append(arm_goes_on(compare(scores["candidate"], together, seed), min_rows=min_rows))
        less.append(_is_less(answers, alone))
    advised = (below for place, below in enumerate(CONFIDENCES) if less[place] and all(as_well[place:]))
    return Cascade(arm=arm.kind, steps=steps, advised=next(advised, None) if may_serve else None)


def _is_less(one: Sequence[Answer], other: Sequence[Answer]) -> bool:
    """Whether some answers take less time than others, and where it is known no more money."""
    cost, cost_of_other = price(one), price(other)
    dearer = cost is not None and cost_of_other is not None and cost > cost_of_other
    return not dearer and sum(answer.seconds for answer in one) < sum(answer.seconds for answer in other)


def _answered(by_arm: Answer, by_adapter: Answer | None) -> Answer:
    """What an answer takes: of one that is left to the adapter, the tokens of that, and the time and cost of both."""
    if by_adapter is None:
        return by_arm
    costs = (by_arm.cost, by_adapter.cost)
    cost = None if None in costs else sum(one for one in costs if one is not None)
    return by_adapter.model_copy(update={"seconds": by_arm.seconds + by_adapter.seconds, "cost": cost})
