"""What the checkers refuse, and what they let pass."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.checkers import one_effect_per_intent
from tests.simulation.history import Document, Fault, History, Write

APPROVAL = {"waiting_for": "approval", "reason": "58 rows are too few"}
REPLICA = {"waiting_for": "replica", "reason": ""}
FAILED_HERE = {"waiting_for": "replica", "reason": "replica-1: out of memory"}
FAILED_THERE = {"waiting_for": "replica", "reason": "replica-2: out of memory"}


def told(*waits: dict[str, str]) -> History:
    """A model that recorded these waits, one with each write."""
    writes: list[Write] = []
    before: Document | None = None
    outbox: list[dict[str, Any]] = []
    for number, data in enumerate(waits):
        outbox = [*outbox, {"id": f"evt_{number}", "envelope": {"type": "model.waiting.v1"}, "data": data}]
        after = {"job_id": "job", "state": "candidate", "decisions": [], "outbox": outbox}
        writes.append(Write(number, number, "registry", "models", "model", before, after, "registry-a"))
        before = after
    return History(writes=writes, faults=[Fault(0, "away")])


@pytest.mark.parametrize(
    "waits", [(APPROVAL, REPLICA), (REPLICA, FAILED_HERE, FAILED_THERE), (REPLICA, FAILED_HERE, REPLICA)]
)
def test_a_wait_may_be_told_again_where_something_changed(waits: tuple[dict[str, str], ...]) -> None:
    assert one_effect_per_intent(told(*waits)) == []


@pytest.mark.parametrize("waits", [(APPROVAL, APPROVAL), (REPLICA, FAILED_HERE, FAILED_HERE)])
def test_the_same_wait_told_twice_in_a_row_is_refused(waits: tuple[dict[str, str], ...]) -> None:
    [wrong] = one_effect_per_intent(told(*waits))
    assert "twice in a row" in wrong
