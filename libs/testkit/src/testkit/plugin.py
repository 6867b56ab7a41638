"""The pytest plugin of all tests: one space on the infrastructure per test or per file.

It takes the infrastructure from the session's fixture `addresses`, which whoever starts one provides.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.logging import configure_logging
from testkit import side_by_side
from testkit.database_clients import DatabaseClients
from testkit.space import Addresses, Space


def pytest_configure(config: pytest.Config) -> None:
    """Log as a service on a terminal does; pytest shows it for failed tests."""
    configure_logging("test", as_json=False)
    config.pluginmanager.register(DatabaseClients())
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(side_by_side.Groups())


@pytest.fixture
def space(addresses: Addresses, tmp_path: Path) -> Iterator[Space]:
    """An isolated corner of the infrastructure for one test."""
    folder = tmp_path / "keys"
    folder.mkdir()
    made = Space(addresses, folder)
    yield made
    made.remove_topics()


@pytest.fixture(scope="module")
def shared_space(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """An isolated corner of the infrastructure for a service that the tests of one file share."""
    made = Space(addresses, tmp_path_factory.mktemp("keys"))
    yield made
    made.remove_topics()
