"""The pytest plugin that starts infrastructure: one per session, and the tiny base model; tests of all packages use it.

`SARTOR_TEST_STACK` may name a JSON file with `Addresses` of an infrastructure that already runs; it is then used
instead of starting one. Where pytest runs several processes (`-n`), they share one that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testkit import side_by_side
from testkit.space import Addresses


@contextmanager
def running_infrastructure(folder: Path) -> Iterator[Addresses]:
    """Kafka, object store, MongoDB and Milvus as real processes, and no service; the log ends with the broker.

    Each test makes its topics anew, which on the object store takes longer than most tests.
    """
    from localstack import LocalStack

    with LocalStack(folder, services=(), usual_ports=False, durable_log=False) as stack:
        yield Addresses(**stack.addresses())


def pytest_configure(config: pytest.Config) -> None:
    """Where pytest runs several processes, start what they share in the one that starts them."""
    if getattr(config.option, "numprocesses", None):
        config.pluginmanager.register(side_by_side.SharedInfrastructure(running_infrastructure))


@pytest.fixture(scope="session")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """The session's infrastructure."""
    if (given := side_by_side.given()) is not None:
        yield given
        return
    with running_infrastructure(tmp_path_factory.mktemp("stack")) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder holding the base model `tiny-test`, built in code."""
    from localstack.base_models import build_tiny

    folder = tmp_path_factory.mktemp("models")
    build_tiny(folder)
    return folder
