"""Pages neither miss nor repeat a document: the order of each tells any two apart."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.architecture.trees import tree_of

import stores.paging

ROOT = Path(__file__).parents[2]

ASKING = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("libs/*/src/**/*.py", "services/*/src/**/*.py")
    for path in ROOT.glob(pattern)
    if "from stores.paging import" in path.read_text()
)


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def orders(node: ast.expr, tree: ast.Module) -> Iterator[list[str]]:
    """The fields of each order that an expression may be; those that are not constant as they are written."""
    if isinstance(node, ast.IfExp):
        yield from orders(node.body, tree)
        yield from orders(node.orelse, tree)
    elif isinstance(node, ast.Name) and hasattr(stores.paging, node.id):
        yield [field for field, _ in getattr(stores.paging, node.id)]
    elif isinstance(node, ast.Name):
        [value] = [
            one.value
            for one in tree.body
            if isinstance(one, ast.Assign) and [ast.unparse(target) for target in one.targets] == [node.id]
        ]
        yield from orders(value, tree)
    else:
        assert isinstance(node, (ast.List, ast.Tuple)), ast.unparse(node)
        pairs = [one for one in node.elts if isinstance(one, ast.Tuple)]
        yield [one.value if isinstance(one, ast.Constant) else ast.unparse(one) for one, _ in (it.elts for it in pairs)]


def told_apart(tree: ast.Module) -> set[tuple[str, str]]:
    """Collections, and a field by which a unique index of theirs ends; what stands before it, the query has fixed."""
    found = set()
    for call in calls(tree, "ensure_index"):
        if any(one.arg == "unique" and ast.unparse(one.value) == "True" for one in call.keywords):
            keys = ast.literal_eval(call.args[1])
            if not any(one.arg == "partialFilterExpression" for one in call.keywords):
                found.add((ast.unparse(call.args[0]), keys if isinstance(keys, str) else keys[-1][0]))
    return found


def ambiguous(tree: ast.Module) -> Iterator[str]:
    """Where a page is asked for in an order in which two documents may be equal."""
    unique = told_apart(tree)
    for call in calls(tree, "page"):
        for order in orders(call.args[2], tree):
            if order[-1] != "_id" and (ast.unparse(call.args[0]), order[-1]) not in unique:
                yield f"{call.lineno}: {order}"


@pytest.mark.parametrize("source", ASKING)
def test_the_order_of_a_page_tells_any_two_documents_apart(source: str) -> None:
    assert list(ambiguous(tree_of(source))) == []


def test_the_pages_are_found() -> None:
    assert len(ASKING) >= 5
    assert sum(len(list(calls(tree_of(source), "page"))) for source in ASKING) >= 8


def test_what_is_refused() -> None:
    tree = ast.parse(
        """
BY_PLACE = [("place", 1)]
ensure_index(self._lines, [("tenant_id", 1), ("number", 1)], unique=True)
ensure_index(self._lines, [("tenant_id", 1), ("place", 1)])
page(self._lines, query, [("number", -1)], limit=1)
page(self._lines, query, [("place", 1), ("_id", 1)], limit=1)
page(self._lines, query, NEWEST_FIRST if newest else OLDEST_FIRST, limit=1)
page(self._lines, query, BY_PLACE, limit=1)
page(self._others, query, [("number", -1)], limit=1)
page(self._lines, query, [(by, -1)], limit=1)
"""
    )
    assert list(ambiguous(tree)) == ["8: ['place']", "9: ['number']", "10: ['by']"]
