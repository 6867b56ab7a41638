"""What is counted as the recovery of a trainer that was killed, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chaos.killing import Kill, pid_in

DEAD, NEXT, LATER = "trainer-host-11", "trainer-host-22-1", "trainer-host-33"


def kill_that_saw(*looks: dict[str, tuple[str, int]]) -> Kill:
    """A kill of process 11 at 0 s, with what was leased at 10 s, 20 s and so on."""
    kill = Kill("trainer", False, 11, 0.0)
    for number, live in enumerate(looks, 1):
        leases: dict[Any, Any] = {job: {"owner": owner, "fence": fence} for job, (owner, fence) in live.items()}
        kill.see(leases, {11, 44}, 10.0 * number)
    kill.whole = 10.0 * len(looks)
    return kill


def test_a_run_that_began_before_the_lease_was_over_is_waited_for() -> None:
    kill = kill_that_saw({"a": (DEAD, 1), "b": (NEXT, 1)}, {"b": (NEXT, 1)}, {"b": (NEXT, 1)}, {"a": (NEXT, 2)})
    assert kill.waited == 20.0
    assert kill.leases == 1.0
    assert json.loads(json.dumps(kill.told))["beside"] == ["('b', 1)"]


@pytest.mark.parametrize(
    "looks",
    [
        ({"a": (DEAD, 1)}, {"b": (NEXT, 1)}, {"b": (NEXT, 1)}),
        ({"a": (DEAD, 1), "b": (NEXT, 1)}, {"c": (NEXT, 1)}, {"d": (LATER, 1)}),
        ({"a": (DEAD, 1), "b": (NEXT, 1)}, {"b": (LATER, 2)}, {"b": (LATER, 2)}),
        ({"a": (DEAD, 1), "b": ("trainer-host-44", 1)}, {"b": ("trainer-host-44", 1)}, {}),
        ({"a": (DEAD, 1)}, {}, {}),
    ],
    ids=["it began later", "others pass it over", "it was begun again", "its process died too", "nobody works"],
)
def test_nothing_else_is_left_out(looks: tuple[dict[str, tuple[str, int]], ...]) -> None:
    kill = kill_that_saw(*looks)
    assert kill.waited == 0.0
    assert kill.leases == 1.5


@pytest.mark.parametrize(("owner", "pid"), [(DEAD, 11), (NEXT, 22), ("a-1-2-3", 2), ("nobody", 0)])
def test_the_process_of_a_lease_is_told_from_its_owner(owner: str, pid: int) -> None:
    assert pid_in(owner) == pid
