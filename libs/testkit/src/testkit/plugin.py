"""The pytest plugin: one infrastructure per session, one space per test, the tiny base model.

`SARTOR_TEST_STACK` may name a JSON file with `Addresses` of an infrastructure that already runs; it is then used
instead of starting one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.logging import configure_logging
from testkit.space import Addresses, Space


def pytest_configure() -> None:
    """Log as a service on a terminal does; pytest shows it for failed tests."""
    configure_logging("test", as_json=False)


@pytest.fixture(scope="session")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """The session's infrastructure: Kafka, object store, MongoDB and Milvus as real processes."""
    if given := os.environ.get("SARTOR_TEST_STACK"):
        yield Addresses(**json.loads(Path(given).read_text()))
        return
    from localstack import LocalStack

    with LocalStack(tmp_path_factory.mktemp("stack"), services=()) as stack:
        yield Addresses(**stack.addresses())


@pytest.fixture
def space(addresses: Addresses, tmp_path: Path) -> Space:
    """An isolated corner of the infrastructure for one test."""
    folder = tmp_path / "keys"
    folder.mkdir()
    return Space(addresses, folder)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder holding the base model `tiny-test`, built in code."""
    from localstack.base_models import build_tiny

    folder = tmp_path_factory.mktemp("models")
    build_tiny(folder)
    return folder
