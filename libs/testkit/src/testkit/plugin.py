"""The pytest plugin: one infrastructure per session, one space per test, the tiny base model.

`SARTOR_TEST_STACK` may name a JSON file with `Addresses` of an infrastructure that already runs; it is then used
instead of starting one. Where pytest runs several processes (`-n`), they share one that way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chassis.logging import configure_logging
from testkit.space import Addresses, Space

GIVEN = "SARTOR_TEST_STACK"
WHOLE_STACK = "stack"


def pytest_configure(config: pytest.Config) -> None:
    """Log as a service on a terminal does; pytest shows it for failed tests."""
    configure_logging("test", as_json=False)
    if config.pluginmanager.hasplugin("dsession"):
        config.pluginmanager.register(SharedInfrastructure())


class SharedInfrastructure:
    """In the process that starts the others: one infrastructure for them all."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def pytest_sessionstart(self) -> None:
        """Start it before the other processes, which find its addresses in the environment."""
        if GIVEN in os.environ:
            return
        folder = Path(self._open.enter_context(TemporaryDirectory(prefix="sartor-tests-")))
        addresses = self._open.enter_context(running_infrastructure(folder / "stack"))
        (folder / "addresses.json").write_text(json.dumps(asdict(addresses)))
        os.environ[GIVEN] = str(folder / "addresses.json")

    def pytest_unconfigure(self) -> None:
        """Stop it once all processes have ended."""
        self._open.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one process what shares something that runs: the whole stack, or a service of one file's tests."""
    for item in items:
        found = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 - pytest has no public way
        scopes = {(fixtures[-1].scope, fixtures[-1].argname) for fixtures in found if fixtures}
        if ("session", WHOLE_STACK) in scopes:
            item.add_marker(pytest.mark.xdist_group(WHOLE_STACK))
        elif any(scope == "module" for scope, _ in scopes):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::", 1)[0]))


@contextmanager
def running_infrastructure(folder: Path) -> Iterator[Addresses]:
    """Kafka, object store, MongoDB and Milvus as real processes, and no service; the log ends with the broker.

    Each test makes its topics anew, which on the object store takes longer than most tests.
    """
    from localstack import LocalStack

    with LocalStack(folder, services=(), usual_ports=False, durable_log=False) as stack:
        yield Addresses(**stack.addresses())


@pytest.fixture(scope="session")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """The session's infrastructure."""
    if given := os.environ.get(GIVEN):
        yield Addresses(**json.loads(Path(given).read_text()))
        return
    with running_infrastructure(tmp_path_factory.mktemp("stack")) as addresses:
        yield addresses


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
