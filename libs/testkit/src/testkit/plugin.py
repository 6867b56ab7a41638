"""The pytest plugin: one infrastructure per session, one space per test or per file, the tiny base model.

`SARTOR_TEST_STACK` may name a JSON file with `Addresses` of an infrastructure that already runs; it is then used
instead of starting one. Where pytest runs several processes (`-n`), they share one that way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.logging import configure_logging
from testkit import side_by_side
from testkit.database_clients import DatabaseClients
from testkit.space import Addresses, Space, running_infrastructure


def pytest_configure(config: pytest.Config) -> None:
    """Log as a service on a terminal does; pytest shows it for failed tests."""
    configure_logging("test", as_json=False)
    config.pluginmanager.register(DatabaseClients())
    if getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(side_by_side.SharedInfrastructure())
    elif hasattr(config, "workerinput"):
        config.pluginmanager.register(side_by_side.Groups())


@pytest.fixture(scope="session")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """The session's infrastructure."""
    if given := os.environ.get(side_by_side.GIVEN):
        yield Addresses(**json.loads(Path(given).read_text()))
        return
    with running_infrastructure(tmp_path_factory.mktemp("stack")) as addresses:
        yield addresses


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


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder holding the base model `tiny-test`, built in code."""
    from localstack.base_models import build_tiny

    folder = tmp_path_factory.mktemp("models")
    build_tiny(folder)
    return folder
