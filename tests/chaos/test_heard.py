"""What explains a failure that a client heard of, and what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos.clients import Violation
from tests.chaos.heard import DYING_SECONDS, service_asked, unexplained
from tests.chaos.killing import pid_of


@dataclass
class Killed:
    victim: str
    at: float


def asked(operation: str, began: float, ended: float, status: int | None) -> list[dict[str, Any]]:
    line = {"op": operation, "number": 1, "key": "k"}
    return [
        {**line, "outcome": "invoke", "monotonic": began},
        {**line, "outcome": "ok", "monotonic": ended, "status": status},
    ]


@pytest.mark.parametrize(
    ("operation", "service"),
    [
        ("GET fine_tuning/jobs?limit=100", "trainer"),
        ("POST chat/completions", "inference_proxy"),
        ("POST vector_stores/vs_1/search", "rag_indexer"),
        ("GET filesystem", "console"),
        ("GET /", "console"),
    ],
)
def test_a_request_is_to_whom_the_ingress_leads_it(operation: str, service: str) -> None:
    assert service_asked(operation) == service


@pytest.mark.parametrize("status", [None, 500, 503])
@pytest.mark.parametrize(
    ("victim", "at", "explains"),
    [
        ("trainer", 11.0, True),
        ("trainer-2", 11.0, True),
        ("trainer-2", 10.0 - DYING_SECONDS / 2, True),
        ("trainer", 10.0 - DYING_SECONDS - 1, False),
        ("trainer", 12.5, False),
        ("ingest", 11.0, False),
    ],
)
def test_only_the_death_of_a_replica_that_was_being_asked_explains_a_failure(
    status: int | None, victim: str, at: float, explains: bool
) -> None:
    lines = asked("POST fine_tuning/jobs", 10.0, 12.0, status)
    found = unexplained(lines, [Killed(victim, at)])
    assert bool(found) is not explains
    assert unexplained(lines, []) != []


@pytest.mark.parametrize("status", [None, 503])
def test_no_death_explains_that_something_was_not_read(status: int | None) -> None:
    found = unexplained(asked("GET fine_tuning/jobs?limit=100", 10.0, 12.0, status), [Killed("trainer", 11.0)])
    assert len(found) == 1
    assert "another replica is to be asked" in found[0]


def test_where_no_process_runs_nobody_is_killed() -> None:
    assert pid_of({"name": "trainer-2", "pid": 7, "statename": "RUNNING"}) == 7
    with pytest.raises(Violation, match="trainer-2 has no process that could be killed: BACKOFF"):
        pid_of({"name": "trainer-2", "pid": 0, "statename": "BACKOFF"})


@pytest.mark.parametrize("status", [200, 404, 409, 429])
def test_a_word_of_a_service_is_no_failure(status: int) -> None:
    assert unexplained(asked("GET files", 1, 2, status), []) == []
