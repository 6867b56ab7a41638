"""One store school, read from the syntax trees: a store speaks its service's words, and nobody reaches through it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.architecture.trees import tree_of

from schemas.services import SERVICES

ROOT = Path(__file__).parents[2]

STORELESS = {"console", "model_server", "serving_agent"}
"""Services without documents of their own; the agent has one lease."""

SCHOOLED = sorted(set(SERVICES) - STORELESS)

PRIVATE = {"AggregateStore", "Collection", "Leases", "Objects"}
"""Types of what only a store may ask."""

QUERIES = {"aggregate", "count_documents", "distinct", "find_one", "for_service", "readable"}
WRITES = {
    "add",
    "add_once",
    "bulk_write",
    "claim",
    "delay",
    "delete",
    "delete_many",
    "delete_one",
    "delete_prefix",
    "find_one_and_update",
    "insert_many",
    "insert_one",
    "put_bytes",
    "put_file",
    "put_stream",
    "release",
    "replace_one",
    "save",
    "update",
    "update_many",
    "update_one",
}
"""What changes something, of aggregates, collections, leases and objects."""


@dataclass(frozen=True)
class Class:
    """A class of a store: its public attributes by their type, and which of its methods change something."""

    name: str
    shown: dict[str, str]
    changing: frozenset[str]


def modules(service: str) -> Iterator[tuple[str, ast.Module]]:
    """All of a service but its store and its wiring."""
    root = ROOT / "services" / service / "src" / service
    for path in sorted(root.rglob("*.py")):
        if path.name != "app.py" and path not in store_files(service):
            yield str(path.relative_to(root)), tree_of(str(path.relative_to(ROOT)))


def store_files(service: str) -> list[Path]:
    """The file of a service's store, or those of its room."""
    root = ROOT / "services" / service / "src" / service
    return [*root.glob("store.py"), *sorted(root.glob("store/*.py"))]


def type_of(annotation: ast.expr | None) -> str:
    """The outermost name of an annotation."""
    while isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    return ast.unparse(annotation) if annotation is not None else ""


def functions(of: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(of):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def called(of: ast.AST) -> set[str]:
    """The names of the methods and functions that are called in it."""
    names = (node.func for node in ast.walk(of) if isinstance(node, ast.Call))
    return {one.attr if isinstance(one, ast.Attribute) else one.id for one in names if not isinstance(one, ast.Call)}  # type: ignore[attr-defined]


def classes(tree: ast.Module) -> Iterator[Class]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        methods = {one.name: one for one in functions(node)}
        given = {arg.arg: type_of(arg.annotation) for one in methods.values() for arg in one.args.args}
        shown = {
            target.attr: given[statement.value.id]
            for statement in ast.walk(methods.get("__init__", node))
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Name)
            for target in statement.targets
            if isinstance(target, ast.Attribute) and statement.value.id in given and not target.attr.startswith("_")
        }
        changing = {name for name, one in methods.items() if called(one) & WRITES}
        while more := {name for name, one in methods.items() if called(one) & changing} - changing:
            changing |= more
        yield Class(node.name, shown, frozenset(changing))


def stores_of(service: str) -> dict[str, Class]:
    return {one.name: one for path in store_files(service) for one in classes(tree_of(str(path.relative_to(ROOT))))}


def reached(tree: ast.Module) -> Iterator[str]:
    """Where a module asks what only a store may ask, or names it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"collection", "leases"}:
            yield f"{node.lineno}: .{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in QUERIES:
            yield f"{node.lineno}: .{node.func.attr}()"
        if isinstance(node, ast.ImportFrom) and node.module in ("stores.leases", "stores.paging"):
            yield f"{node.lineno}: {node.module}"
        if isinstance(node, ast.ImportFrom) and node.module in ("eventbus", "stores.mongo"):
            yield from (f"{node.lineno}: {one.name}" for one in node.names if one.name in PRIVATE)
        if isinstance(node, ast.Dict):
            operators = [key.value for key in node.keys if isinstance(key, ast.Constant) and str(key.value)[:1] == "$"]
            yield from (f"{node.lineno}: {operator}" for operator in operators)


def is_query(node: ast.expr) -> bool:
    """Whether an expression makes a dict, or joins two."""
    return isinstance(node, (ast.Dict, ast.DictComp)) or (
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
    )


def wrong_calls(tree: ast.Module, stores: dict[str, Class]) -> Iterator[str]:
    """Where routes have a store change something, or hand it a query of their own making."""
    for function in functions(tree):
        held = {arg.arg: type_of(arg.annotation) for arg in function.args.args}
        held = {name: kind for name, kind in held.items() if kind in stores}
        made = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and is_query(node.value)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            asked = node.func.value
            if not (isinstance(asked, ast.Name) and asked.id in held):
                if ast.unparse(asked).split(".")[0] in held:
                    yield f"{node.lineno}: {ast.unparse(node.func)} reaches through"
                continue
            if node.func.attr in stores[held[asked.id]].changing:
                yield f"{node.lineno}: {ast.unparse(node.func)} changes something"
            for argument in [*node.args, *(one.value for one in node.keywords)]:
                if is_query(argument) or (isinstance(argument, ast.Name) and argument.id in made):
                    yield f"{node.lineno}: {ast.unparse(node.func)} is given a query"


def test_every_service_with_documents_is_schooled() -> None:
    assert set(SERVICES) >= STORELESS
    assert all(stores_of(service) for service in SCHOOLED)
    assert not any(stores_of(service) for service in STORELESS)


def shown_by_stores(service: str) -> list[str]:
    found = stores_of(service)
    hidden = PRIVATE | set(found)
    return [f"{one.name}.{name}" for one in found.values() for name, kind in one.shown.items() if kind in hidden]


def reached_in(service: str) -> list[str]:
    return [f"{name}:{found}" for name, tree in modules(service) for found in reached(tree)]


def wrong_in_routes(service: str) -> list[str]:
    stores = stores_of(service)
    routes = [(name, tree) for name, tree in modules(service) if name.partition("/")[0] in ("api.py", "api")]
    assert routes
    return [f"{name}:{found}" for name, tree in routes for found in wrong_calls(tree, stores)]


@pytest.mark.parametrize("service", SCHOOLED)
def test_a_store_shows_nothing_that_others_could_ask(service: str) -> None:
    assert any(one.changing for one in stores_of(service).values())
    assert shown_by_stores(service) == []


@pytest.mark.parametrize("service", SCHOOLED)
def test_queries_live_in_the_store_alone(service: str) -> None:
    assert reached_in(service) == []


@pytest.mark.parametrize("service", SCHOOLED)
def test_routes_read_by_the_store_and_change_state_by_a_use_case(service: str) -> None:
    assert wrong_in_routes(service) == []


STORE = """
class Things:
    def __init__(self, things: AggregateStore[Thing], others: Collection) -> None:
        self.things = things
        self._others = others

    async def get(self, thing_id):
        return await self.things.get(thing_id)

    async def forget(self, thing_id):
        await self._others.delete_one({"_id": thing_id})

    async def forget_all(self):
        await self.forget("all")
"""

API = """
def routes(things: Things):
    async def read(principal):
        return await things.get("a")

    async def reach(principal):
        return await things.things.get("a")

    async def ask(principal):
        wanted = {"state": "open"}
        return await things.select(wanted)

    async def ask_more(principal):
        return await things.select(principal.only | {"a": 1})

    async def change(principal):
        await things.forget_all()
"""


def test_the_check_sees_what_is_wrong() -> None:
    stores = {one.name: one for one in classes(ast.parse(STORE))}
    assert stores["Things"].shown == {"things": "AggregateStore"}
    assert stores["Things"].changing == {"forget", "forget_all"}
    found = {line.partition(": ")[2] for line in wrong_calls(ast.parse(API), stores)}
    assert found == {
        "things.things.get reaches through",
        "things.select is given a query",
        "things.forget_all changes something",
    }
    module = """
from eventbus import Aggregate, AggregateStore
from stores.leases import Leases

async def work(things):
    await things.leases.renew()
    things.find_one({"a": {"$gt": 1}})
"""
    assert {line.partition(": ")[2] for line in reached(ast.parse(module))} == {
        "AggregateStore",
        "stores.leases",
        ".find_one()",
        ".leases",
        "$gt",
    }
