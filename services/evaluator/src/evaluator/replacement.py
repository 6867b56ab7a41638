"""Whether the arm that serves a name goes on doing so once the name's adapter is tested on the same rows."""

from __future__ import annotations

from evaluator.comparison import Comparison

ENOUGH_ALIKE = 0.05
"""An adapter that cannot be better than this, on the scale of the deciding metric, is not worth what it costs."""

A_POINT = 0.01
"""Where rows do not tell, the adapter must be better by more than this."""


def arm_goes_on(over_arm: Comparison, *, min_rows: int) -> bool:
    """Whether the arm goes on: many rows choose the best within five points, few the better within one.

    The cheaper one goes on unless the adapter is better beyond doubt, or might be by more than `ENOUGH_ALIKE` and is by
    more than `A_POINT` on these rows.

    Args:
        over_arm: adapter minus arm on the same rows.
        min_rows: on fewer the arm never goes on.
    """
    found = over_arm.interval
    if found.n < min_rows or over_arm.clear:
        return False
    return found.high <= ENOUGH_ALIKE or found.value <= A_POINT


def generating_arm_goes_on(over_adapter: Comparison, *, min_rows: int) -> bool:
    """Whether an arm by which the base model answers goes on: it reads more than the adapter for each answer.

    Args:
        over_adapter: arm minus adapter on the same rows.
        min_rows: on fewer the arm never goes on.
    """
    return over_adapter.interval.n >= min_rows and over_adapter.clear
