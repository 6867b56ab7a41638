"""Groups of tests are handed out whole, counted once, and those that are over are forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testkit.side_by_side import GROUPS, Grouped

TESTS = ["one", "a1", "a2", "two", "three"]


class Node:
    """A process that runs tests, as the scheduler sees it."""

    shutting_down = False
    gateway = SimpleNamespace(id="gw")

    def __init__(self) -> None:
        self.given: list[str] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += [TESTS[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"a1": "group", "a2": "group"}))
    monkeypatch.setenv(GROUPS, str(path))
    config = SimpleNamespace(getvalue=lambda _: ["popen"] * 2, option=SimpleNamespace(loadscopereorder=True))
    return Grouped(config, None)


def scheduled(scheduler: Any, *nodes: Node) -> None:
    for node in nodes:
        scheduler.add_node(node)
        scheduler.add_node_collection(node, TESTS)
    scheduler.schedule()


def test_a_group_is_handed_out_first_and_whole_and_forgotten_once_it_is_over(scheduler: Any) -> None:
    first, second = Node(), Node()
    scheduled(scheduler, first, second)
    assert first.given[:2] == ["a1", "a2"]
    scheduler.mark_test_complete(first, TESTS.index("a1"))
    assert scheduler.assigned_work[first]["group"] == {"a1": True, "a2": False}
    scheduler.mark_test_complete(first, TESTS.index("a2"))
    assert "group" not in scheduler.assigned_work[first]
    left = [(node, test) for node in (first, second) for test in node.given if not test.startswith("a")]
    for node, test in left:
        scheduler.mark_test_complete(node, TESTS.index(test))
    assert sorted(first.given + second.given) == sorted(TESTS)
    assert scheduler.tests_finished
    assert not scheduler.has_pending


def test_what_a_process_that_died_left_is_run_by_another(scheduler: Any) -> None:
    first, second = Node(), Node()
    scheduled(scheduler, first, second)
    scheduler.mark_test_complete(first, TESTS.index("a1"))
    assert scheduler.remove_node(first) == "a2"
    second.shutting_down = False
    while scheduler.workqueue:
        scheduler._assign_work_unit(second)
    assert "a2" in second.given
    assert "a1" not in second.given
