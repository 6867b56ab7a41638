"""One door: each service is joined by its `build` alone, in production and in the simulation."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.architecture.trees import tree_of

from runtime import Overrides
from schemas.services import SERVICES

ROOT = Path(__file__).parents[2]

PARTS = {
    "AggregateStore",
    "Bus",
    "GivenUp",
    "KafkaBroker",
    "Minio",
    "Objects",
    "Parking",
    "Relay",
    "Service",
    "connect",
}
"""What a service is joined from: the bus, its outbox and dead ends, and the stores."""

MAY_MAKE = {
    "libs/eventbus/src/eventbus/broker.py": {"KafkaBroker"},
    "libs/eventbus/src/eventbus/bus.py": {"Parking"},
    "libs/eventbus/src/eventbus/publish/relay.py": {"GivenUp"},
    "libs/runtime/src/runtime/service.py": PARTS - {"GivenUp", "KafkaBroker", "Minio", "Parking", "Service"},
    "libs/stores/src/stores/heartbeat.py": {"connect"},  # a process of its own
    "libs/stores/src/stores/objects.py": {"Minio"},
    "libs/testkit/src/testkit/space.py": {"Bus", "Objects"},  # publishes as others do, and looks into the bucket
    "tests/simulation/scenario.py": {"Bus"},  # the operator's
    **{f"services/{name}/src/{name}/app.py": {"Service"} for name in SERVICES},
}
"""Which of them are made where."""

SOURCES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("libs/*/src/**/*.py", "services/*/src/**/*.py", "tests/simulation/*.py")
    for path in ROOT.glob(pattern)
)


def made(tree: ast.AST) -> Iterator[str]:
    """The parts that are made somewhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in PARTS:
                yield name


def door(service: str) -> ast.FunctionDef:
    """The `build` of a service."""
    tree = tree_of(f"services/{service}/src/{service}/app.py")
    [found] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build"]
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_built_by_the_same_signature(service: str) -> None:
    build = door(service)
    assert ast.unparse(build.args) == "settings: Settings, **overrides: Unpack[Overrides]"
    assert build.returns is not None
    assert ast.unparse(build.returns) == "FastAPI"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_takes_all_that_it_is_given(service: str) -> None:
    [joined] = [node for node in ast.walk(door(service)) if isinstance(node, ast.Call) and "Service" in made(node)]
    assert "**overrides" in ast.unparse(joined)
    assert "overrides" not in ast.unparse(door(service)).replace(ast.unparse(joined), "").partition("\n")[2]


def test_what_is_outside_a_service_can_be_given() -> None:
    assert set(Overrides.__annotations__) == {"peers", "database", "broker", "objects", "clock"}


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_but_the_runtime_and_the_door_joins_a_service(source: str) -> None:
    assert set(made(tree_of(source))) == MAY_MAKE.get(source, set())


def test_the_sources_that_may_are_there() -> None:
    assert set(MAY_MAKE) <= set(SOURCES)
    assert len(SOURCES) > 150
