"""Rules that a type checker and an import contract cannot state, read from the syntax trees."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from tests.architecture.trees import tree_of
from tests.chaos.plan import POINTS

ROOT = Path(__file__).parents[2]

MAY_READ_THE_ENVIRONMENT = {
    "cli/src/sartor_cli/client.py": "the command's own three variables",
    "infra/local/src/localstack/stack.py": "where base models are shared between checkouts",
    "infra/local/src/localstack/base_models.py": "libraries must stay offline",
    "infra/local/src/localstack/broker_storage.py": "the store's key, as the broker beside it gets it",
    "libs/chassis/src/chassis/crash.py": "points pass in processes that have no settings; no installation sets it",
    "libs/chassis/src/chassis/private_folders.py": "the temporary folder, on a full disk as well",
    "libs/testkit/src/testkit/side_by_side.py": "tests may share a running stack, and tell other processes where it is",
    "services/trainer/src/trainer/arms/process.py": "numpy reads there how many threads it may have",
    "services/trainer/src/trainer/run/fork_server.py": "what the child process may inherit",
    "services/serving_agent/src/serving_agent/launcher.py": "what the child process may inherit",
}

MAY_PRINT = (
    "cli/",
    "infra/local/",
    "schemas/src/schemas/export.py",
    "libs/stores/src/stores/heartbeat.py",  # a process of its own, its parent reads what it says
    "services/trainer/src/trainer/run/main.py",  # the same
)

LONGEST_FILE = 400

SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("schemas", "libs", "services", "cli", "infra/local")
    for path in (ROOT / folder).rglob("src/**/*.py")
)


@cache
def calls(source: str) -> tuple[tuple[str, ast.Call], ...]:
    return tuple((ast.unparse(node.func), node) for node in ast.walk(tree_of(source)) if isinstance(node, ast.Call))


def test_the_sources_are_found() -> None:
    assert len(SOURCES) > 150


def test_only_settings_read_the_environment() -> None:
    readers = {
        source
        for source in SOURCES
        for node in ast.walk(tree_of(source))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ast.unparse(node.value) == "os"
    }
    assert readers == set(MAY_READ_THE_ENVIRONMENT)


def test_every_crash_point_is_swept() -> None:
    """`crash_point` takes a plain name, each stands in one place, and the sweep ends a process there."""
    named = [
        ast.literal_eval(node.args[0]) for source in SOURCES for name, node in calls(source) if name == "crash_point"
    ]
    assert len(named) == len(set(named))
    assert set(named) == {point for _, point in POINTS}


def test_services_and_libs_log_and_do_not_print() -> None:
    found = [
        source for source in SOURCES if not source.startswith(MAY_PRINT) for name, _ in calls(source) if name == "print"
    ]
    assert found == []


def test_nothing_is_unpickled() -> None:
    loads = {"pickle.load", "pickle.loads", "torch.load", "marshal.loads", "joblib.load", "numpy.load", "np.load"}
    assert [(source, name) for source in SOURCES for name, _ in calls(source) if name in loads] == []


def test_no_coroutine_sleeps_or_waits_on_the_event_loop() -> None:
    blocking = {"time.sleep", "subprocess.run", "subprocess.check_output", "requests.get", "urllib.request.urlopen"}
    found = [
        (source, function.name, ast.unparse(node.func))
        for source in SOURCES
        for function in ast.walk(tree_of(source))
        if isinstance(function, ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in blocking
    ]
    assert found == []


def test_every_broad_except_says_why() -> None:
    bare = [
        f"{source}:{number}"
        for source in SOURCES
        for number, line in enumerate((ROOT / source).read_text().splitlines(), 1)
        if re.search(r"except (Base)?Exception\b(?!Group)", line) and "#" not in line
    ]
    assert bare == []


def test_times_have_zones() -> None:
    naive = [(source, name) for source in SOURCES for name, _ in calls(source) if name.endswith("utcnow")]
    assert naive == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_is_short_enough_to_read(source: str) -> None:
    assert len((ROOT / source).read_text().splitlines()) <= LONGEST_FILE


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "common", "manager", "base", "misc"}
    assert [source for source in SOURCES if Path(source).stem in drawers] == []


def test_no_address_of_a_peer_is_made_from_what_people_send() -> None:
    """`Peer` quotes ids into a constant path; a path put together beforehand could lead anywhere."""
    made = [
        f"{source}:{node.lineno}"
        for source in SOURCES
        if source.startswith("services/")
        for node in ast.walk(tree_of(source))
        if isinstance(node, ast.JoinedStr) and ast.unparse(node)[2:].startswith(("/v1", "/internal"))
    ]
    assert made == []
