"""What one service reads of another is what that one says it answers."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI

from schemas.services import SERVICES
from tests.conftest import ROOT
from tests.contract.permissions import routes_of


def reads() -> Iterator[tuple[str, tuple[str, str], Any]]:
    """Module, method with address, and shape of each `Peer.read` in the services and libs."""
    for path in sorted([*ROOT.glob("services/*/src/**/*.py"), *ROOT.glob("libs/*/src/**/*.py")]):
        name = ".".join(path.relative_to(next(one for one in path.parents if one.name == "src")).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="read"), args=[shape, ast.Constant(value=str(address)), *_], keywords=given
                ):
                    names = vars(importlib.import_module(name))
                    method = "POST" if any(one.arg == "json" for one in given) else "GET"
                    yield name, (method, address), eval(ast.unparse(shape), names)


def test_each_answer_that_is_read_is_the_one_that_is_given(built: Callable[[str], FastAPI]) -> None:
    answers = {
        (method, re.sub(r"\{[^}]*\}", "{}", route.path)): route.response_model
        for service in SERVICES
        for route in routes_of(built(service))
        for method in route.methods
    }
    found = list(reads())
    assert len(found) >= 10
    assert [(name, address) for name, address, shape in found if answers.get(address) != shape] == []
