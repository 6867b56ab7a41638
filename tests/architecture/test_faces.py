"""A lib shows what its `__init__` names; the rest of it is its own, but for a few tests that look inside."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

FACED = ("arithmetic", "arms", "eventbus", "runtime", "serving", "work")
"""Libs that have a public face."""

MAY_LOOK_INSIDE = {
    "libs/chassis/tests/test_http.py": {"runtime.idempotency"},
    "libs/testkit/src/testkit/in_process_broker.py": {"eventbus.messages.envelopes"},
    "libs/testkit/src/testkit/space.py": {"eventbus.messages.envelopes"},
    "services/registry/tests/test_replicas.py": {"serving.announcing"},
    "services/trainer/tests/test_attempts.py": {"work.ends", "work.worker"},
    "tests/chaos/test_poison.py": {"eventbus.consume.handlers", "eventbus.consume.retry_policy"},
    "tests/contract/test_schemas.py": {"eventbus.messages.event_size"},
    "tests/simulation/world.py": {"eventbus.consume.retry_policy", "eventbus.messages.envelopes"},
}
"""Who imports what a lib does not show: what stands for a producer, and tests that change or read a limit."""

SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("bench", "cli", "infra", "libs", "schemas", "services", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


NAMED = re.compile(rf"^\s*(?:import|from)\b.*\b(?:{'|'.join(FACED)})\b", re.MULTILINE)
"""A line that may import one of them: no other file is parsed."""


def inside(tree: ast.AST) -> Iterator[str]:
    """The names that a module imports from a lib and that the lib does not show."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.partition(".")[0] in FACED and "." in one.name)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            lib, _, room = node.module.partition(".")
            if lib not in FACED:
                continue
            shown = () if room else importlib.import_module(lib).__all__
            for one in node.names:
                path = f"{node.module}.{one.name}"
                if one.name not in shown:
                    yield path if is_module(path) else node.module


def is_module(path: str) -> bool:
    """Whether a path names a module, and not something in one."""
    try:
        return find_spec(path) is not None
    except ModuleNotFoundError:
        return False


def owner(source: str) -> str:
    """The lib that a file belongs to, be it one of its tests."""
    parts = Path(source).parts
    return parts[1] if parts[0] == "libs" else ""


def test_delivery_is_used_by_few_names() -> None:
    assert len(importlib.import_module("eventbus").__all__) <= 9


def test_a_lib_is_used_by_its_face() -> None:
    looking: dict[str, set[str]] = {}
    for source in SOURCES:
        text = (ROOT / source).read_text()
        if not NAMED.search(text):
            continue
        found = {one for one in inside(ast.parse(text)) if one.split(".")[0] != owner(source)}
        if found:
            looking[source] = found
    assert looking == MAY_LOOK_INSIDE


def test_what_looks_inside_is_seen() -> None:
    tree = ast.parse(
        """
import eventbus.bus
from eventbus import Aggregate, bus
from eventbus import Consumer
from eventbus.consume import lag
from eventbus.consume.lag import Lag
import eventbus
from stores.mongo import Collection
"""
    )
    assert list(inside(tree)) == [
        "eventbus.bus",
        "eventbus.bus",
        "eventbus",
        "eventbus.consume.lag",
        "eventbus.consume.lag",
    ]
