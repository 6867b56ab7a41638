"""Tests in several processes: all share one infrastructure, and what shares a running service stays in one process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from testkit.space import Addresses

GIVEN = "SARTOR_TEST_STACK"
"""Names a JSON file with `Addresses` of an infrastructure that runs."""

GROUPS = "SARTOR_TEST_GROUPS"
"""Names the file in which the processes say which tests belong together."""

WHOLE_STACK = "stack"
"""The fixture that starts every service; all its tests are one group."""


class Grouped(LoadScopeScheduling):  # type: ignore[misc] # the package says nothing of its types
    """Hands out groups, the largest first, then tests one by one.

    The groups come by a file: pytest-xdist 3.8 sends them in node ids, which pytest 9.2 no longer lets it change.
    """

    @cached_property
    def _groups(self) -> dict[str, str]:
        """By test; read once all processes have written what they found, which is the same."""
        groups: dict[str, str] = json.loads(Path(os.environ[GROUPS]).read_text())
        return groups

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Forget a group once its last test is over, as every group that is known is counted after each test."""
        super().mark_test_complete(node, item_index, duration)
        group = self._split_scope(self.registered_collections[node][item_index])
        if all(self.assigned_work[node][group].values()):
            del self.assigned_work[node][group]


def given() -> Addresses | None:
    """The infrastructure that runs already, if there is one."""
    path = os.environ.get(GIVEN)
    return Addresses(**json.loads(Path(path).read_text())) if path else None


class SharedInfrastructure:
    """The plugin of the process that starts the others.

    Args:
        start: starts an infrastructure that keeps its files in a folder.
    """

    def __init__(self, start: Callable[[Path], AbstractContextManager[Addresses]]) -> None:
        self._start = start
        self._open = ExitStack()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Start the infrastructure before the other processes, which find it by the environment."""
        folder = Path(self._open.enter_context(TemporaryDirectory(prefix="sartor-tests-")))
        os.environ[GROUPS] = str(folder / "groups.json")
        if GIVEN in os.environ:
            return
        addresses = self._open.enter_context(self._start(folder / "stack"))
        (folder / "addresses.json").write_text(json.dumps(asdict(addresses)))
        os.environ[GIVEN] = str(folder / "addresses.json")

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """See `Grouped`."""
        return Grouped(config, log)

    def pytest_unconfigure(self) -> None:
        """Stop the infrastructure once all processes have ended."""
        self._open.close()


class Groups:
    """The plugin of the processes that run tests."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Write down the group of each test that shares a service with others of its file, or the whole stack."""
        path = Path(os.environ[GROUPS])
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({item.nodeid: group for item in items if (group := _group(item))}))
        draft.replace(path)


def _group(item: pytest.Item) -> str | None:
    found = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 - pytest has no public way
    scopes = {(fixtures[-1].scope, fixtures[-1].argname) for fixtures in found if fixtures}
    if ("session", WHOLE_STACK) in scopes:
        return WHOLE_STACK
    return item.nodeid.split("::", 1)[0] if any(scope == "module" for scope, _ in scopes) else None
