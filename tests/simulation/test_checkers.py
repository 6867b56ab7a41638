"""What the checkers refuse, and what they let pass."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.checkers import one_effect_per_intent
from tests.simulation.history import Document, Fault, History, Write
from tests.simulation.turn_checker import (
    lines_are_in_the_order_in_which_they_were_told,
    places_are_given_to_who_waited_longer,
)

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
        after = {"job_id": "job", "arm": None, "state": "candidate", "decisions": [], "outbox": outbox}
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


def job(job_id: str, tenant: str, state: str, fence: int, owner: str) -> dict[str, Any]:
    lease = {"fence": fence, "owner": owner, "until_ms": 9_000 if owner else 0}
    return {"_id": job_id, "tenant_id": tenant, "state": state, "lease": lease}


@pytest.mark.parametrize(("b_had", "claimed", "wrong"), [(1, "b", 0), (3, "b", 1), (1, "a", 1)])
def test_a_place_is_given_to_who_waited_longer(b_had: int, claimed: str, wrong: int) -> None:
    steps: list[tuple[str, str, dict[str, Any] | None, dict[str, Any]]] = [
        ("turns", "b", None, {"at": b_had}),
        ("jobs", "a", None, job("a", "a", "queued", 0, "")),
        ("turns", "a", None, {"at": 2}),
        ("jobs", "a", job("a", "a", "queued", 0, ""), job("a", "a", "running", 1, "w")),
        ("jobs", "b", None, job("b", "b", "queued", 0, "")),
        ("jobs", "a", job("a", "a", "running", 1, "w"), job("a", "a", "queued", 1, "w")),
        ("jobs", "a", job("a", "a", "queued", 1, "w"), job("a", "a", "queued", 1, "")),
    ]
    fence = 1 if claimed == "a" else 0
    taken = (job(claimed, claimed, "queued", fence, ""), job(claimed, claimed, "queued", fence + 1, "w"))
    steps.append(("jobs", claimed, *taken))
    history = History()
    history.writes += [
        Write(at, 100, "trainer", name, key, *change, "w") for at, (name, key, *change) in enumerate(steps)
    ]
    assert len(places_are_given_to_who_waited_longer(history)) == wrong


def test_who_waited_when_that_was_asked_may_be_gone_before_the_place_is_given() -> None:
    """Between the two a call may take long, and the lease of the job is renewed."""
    running, gone = job("a", "a", "running", 1, "w"), job("b", "b", "cancelled", 0, "")
    steps: list[tuple[str, str, dict[str, Any] | None, dict[str, Any]]] = [
        ("turns", "b", None, {"at": 1}),
        ("turns", "a", None, {"at": 2}),
        ("jobs", "b", None, job("b", "b", "queued", 0, "")),
        ("jobs", "a", running, {**running, "checkpoint": {"step": 2}}),
        ("jobs", "b", job("b", "b", "queued", 0, ""), gone),
        ("jobs", "a", {**running, "checkpoint": {"step": 2}}, {**running, "checkpoint": {"step": 2}}),
        ("jobs", "a", {**running, "checkpoint": {"step": 2}}, job("a", "a", "queued", 1, "w")),
    ]
    history = History()
    history.writes += [
        Write(at, 100, "trainer", name, key, *change, "w") for at, (name, key, *change) in enumerate(steps)
    ]
    assert places_are_given_to_who_waited_longer(history) == []
    fit = {"_id": "a", "tenant_id": "a", "state": "to_fit", "lease": {"fence": 1, "owner": "w", "until_ms": 9_000}}
    claimed = {**fit, "lease": {**fit["lease"], "fence": 2}}
    history.writes.insert(5, Write(5, 100, "trainer", "arm_fits", "a", fit, claimed, "w"))
    assert places_are_given_to_who_waited_longer(history) == [], "the job's fit, which has its id, is no job"
    del history.writes[2]
    assert len(places_are_given_to_who_waited_longer(history)) == 1


@pytest.mark.parametrize(("told", "wrong"), [((5, 5, 7), 0), ((5, 4, 7), 1)])
def test_a_line_that_is_older_than_one_told_before_is_refused(told: tuple[int, ...], wrong: int) -> None:
    lines = [{"job_id": "job", "order": ms * 10**6 + 9 - ms, "message": "step"} for ms in told]
    writes = [
        Write(number, number, "trainer", "job_events", str(number), None, line, "trainer-a")
        for number, line in enumerate(lines)
    ]
    writes.append(Write(9, 9, "trainer", "job_events", "0", lines[0], lines[0], "trainer-a"))
    assert len(lines_are_in_the_order_in_which_they_were_told(History(writes=writes))) == wrong
