"""Named points of the source, and their code as the syntax tree tells it: without layout, comments and line breaks.

`python -m tests.planted.points eventbus:Relay._send` prints what a row may quote.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.planted.bug import Planted

ROOT = Path(__file__).parents[2]


def sources(tree: Path) -> list[Path]:
    """Folders from which the tree's packages are imported."""
    return [*tree.glob("*/src"), *tree.glob("*/*/src"), tree]


def modules(tree: Path, name: str) -> list[Path]:
    """Files of a module, or of a package and all below it."""
    for source in sources(tree):
        place = source.joinpath(*name.split("."))
        if place.is_dir():
            return sorted(place.rglob("*.py"))
        if (file := place.with_suffix(".py")).is_file():
            return [file]
    return []


def names(statement: ast.stmt) -> list[str]:
    """What a statement defines."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [ast.unparse(target) for target in targets]
        case ast.AnnAssign(target=target):
            return [ast.unparse(target)]
        case _:
            return []


def definitions(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, list[ast.stmt], int]]:
    """Qualified names of functions, classes and constants, each with its block and its place there."""
    for place, statement in enumerate(body):
        for name in names(statement):
            yield within + name, body, place
        if isinstance(statement, ast.ClassDef):
            yield from definitions(statement.body, f"{within}{statement.name}.")


@cache
def defined(file: Path) -> list[str]:
    """Qualified names that a file defines, asked while no bug is planted."""
    return [name for name, _, _ in definitions(ast.parse(file.read_text()).body)]


def find(tree: Path, point: str) -> tuple[Path, str]:
    """The file of a point and its qualified name there.

    Args:
        tree: Root of the repository or of a copy.
        point: `package:qualified name`, where the package may be a module too.

    Raises:
        LookupError: Not exactly one place has that name.
    """
    package, _, name = point.partition(":")
    found = [file for file in modules(tree, package) for one in defined(file) if one == name]
    if len(found) != 1:
        places = ", ".join(str(file.relative_to(tree)) for file in found)
        raise LookupError(f"{point} names {len(found)} places, not one: {places or 'was it moved or renamed?'}")
    return found[0], name


def occurrences(code: str, part: str) -> Iterator[tuple[int, str, str]]:
    """Where a part stands, as it stands there, and what its further lines are indented by: as the line it begins in."""
    for found in re.finditer(re.escape(part.partition("\n")[0]), code):
        line = code[code.rfind("\n", 0, found.start()) + 1 :]
        margin = line[: len(line) - len(line.lstrip(" "))]
        whole = part.replace("\n", f"\n{margin}")
        if code.startswith(whole, found.start()):
            yield found.start(), whole, margin


def definition(module: ast.Module, name: str) -> tuple[list[ast.stmt], int]:
    """The block that holds a definition, and its place there."""
    return next((body, place) for one, body, place in definitions(module.body) if one == name)


def edited(text: str, name: str, old: str, new: str) -> str:
    """A module's text with a part of one definition changed.

    Args:
        text: The module.
        name: Qualified name of what holds the part.
        old: The part, as `ast.unparse` writes it; further lines relative to the first.
        new: What stands there instead.

    Raises:
        LookupError: The part does not occur exactly once.
        SyntaxError: What stands there instead is no Python.
    """
    module = ast.parse(text)
    body, place = definition(module, name)
    code = ast.unparse(body[place])
    found = list(occurrences(code, old))
    if len(found) != 1:
        raise LookupError(f"{old!r} occurs {len(found)} times, not once, in {name}:\n{code}")
    at, whole, margin = found[0]
    changed = code[:at] + new.replace("\n", f"\n{margin}") + code[at + len(whole) :]
    body[place : place + 1] = ast.parse(changed).body
    return ast.unparse(module)


def planted(bug: Planted, tree: Path) -> dict[Path, str]:
    """Texts of the files that a bug changes, with the bug in them."""
    texts: dict[Path, str] = {}
    for edit in bug.edits:
        file, name = find(tree, edit.point)
        texts[file] = edited(texts.get(file) or file.read_text(), name, edit.old, edit.new)
    return texts


if __name__ == "__main__":
    path, called = find(ROOT, sys.argv[1])
    block, index = definition(ast.parse(path.read_text()), called)
    print(f"{path.relative_to(ROOT)}\n\n{ast.unparse(block[index])}")
