"""One clock: what time it is, a service asks of the clock that it was built with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.trees import tree_of

ROOT = Path(__file__).parents[2]

MACHINES = {
    "libs/chassis/src/chassis/clock.py": "where no clock was given",
    "libs/chassis/src/chassis/crash.py": "notes for the sweep, which reads them by its machine's",
    "libs/chassis/src/chassis/tokens.py": "the library that verifies goes by the machine's",
    "libs/eventbus/src/eventbus/consume/lag.py": "compared with what the Kafka client noted by the machine's",
    "libs/eventbus/src/eventbus/consume/parking.py": "no time: a number that rises with each parking of a key",
    "libs/stores/src/stores/orphans.py": "compared with what the object store noted by its machine's",
    "libs/testkit/src/testkit/history.py": "written down by several processes of one machine",
    "libs/testkit/src/testkit/simulated_documents.py": "a database's clock, where a test gives none",
}
"""Who goes by the machine's clock, and why; decision 23 names them."""

SOURCES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("libs/*/src/**/*.py", "services/*/src/**/*.py", "schemas/src/**/*.py")
    for path in ROOT.glob(pattern)
)

ASKED = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


def last_name(node: ast.expr) -> str:
    """`c` of `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def asks(tree: ast.AST) -> Iterator[int]:
    """The lines that ask the machine what time it is, or import what does under a name of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and f"{last_name(node.value)}.{node.attr}" in ASKED:
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and {f"{node.module}.{one.name}" for one in node.names} & ASKED:
            yield node.lineno
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (node.lineno for one in node.names if one.asname and one.name in ("time", "datetime"))


def test_only_those_named_ask_the_machine_what_time_it_is() -> None:
    asking = {source for source in SOURCES if list(asks(tree_of(source)))}
    assert asking == set(MACHINES)


def test_what_asks_is_seen() -> None:
    tree = ast.parse(
        """
from time import time
from time import monotonic
import time
import datetime
since = time.time_ns() // 1000
until = datetime.now(UTC) + KEEP
later = datetime.datetime.now(UTC)
make = Field(default_factory=time.time)
took = time.monotonic() - began
then = datetime.fromtimestamp(wall(), UTC)
import time as t
from datetime import datetime as dt
"""
    )
    assert sorted(asks(tree)) == [2, 6, 7, 8, 9, 12, 13]
